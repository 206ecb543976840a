"""Which of several configurations is faster, and how fast each is, from rounds in which each runs once.

The confirmation is a randomised block design: rounds × configurations, a fresh process in each cell. What the machine
does to a whole round hits all alike and cancels in a difference inside it; how much one run differs from the next is
learnt from all configurations together, with room for one that is noisier than the others and for runs that other work
slowed down (`autotune.stats.noise`), and from how far the two that are compared move together from round to round:
runs that hardly differ between rounds differ no more inside them. The rounds go on until the answer is clear, so it is
asked again after each, and what is emitted is the best of several; the levels below pay for both.
`benchmarks/comparison_shares.py` measures how often words and intervals are right.

What stood here before, and what was considered instead:
- Yuen's trimmed mean of the paired differences with Student's t at 98 %, Bonferroni on top. It forgets all other
  configurations: two rounds leave one degree of freedom, and an interval of a factor 11,700 either way.
- Residuals of the two-way fit pooled, shrunk towards 5 % with three degrees of freedom: fits 5 % to 20 % of noise. At
  0.2 % and two rounds the prior alone makes the estimate of the noise 3.5 %, 17 times too large.
- Robust weights by iterated least squares: with two rounds an outlier and its partner have the same residual, and a fit
  has to settle on one of them. The posterior here keeps both in its interval.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np

from autotune.stats.estimate import Estimate, Interval
from autotune.stats.likelihood import Values
from autotune.stats.noise import Scale
from autotune.stats.posterior import Posterior, locate

TIE = 1.01
"""A ratio that nobody would change a setting for, and of two finalists no reason to prefer the faster."""
WORTHWHILE = 1.05
"""A speed-up that somebody would want, and that must not be missed."""
FEWEST_ROUNDS = 2
"""One says nothing about the spread."""
SLOWER_AT_MOST = 0.025
"""Probability of being slower than the baseline with which a configuration is still called faster."""

_EQUIVALENT = math.log(WORTHWHILE) / 2
"""Half way to a worthwhile difference: a ratio that lies within it for sure is no worthwhile one."""
_SURELY_EQUIVALENT = 0.95
_LOOK = 0.1
"""Share of each level of doubt that a look may use up which ends the rounds: there is one after every round."""
_NO_RIVAL = 0.99
"""Probability of being slower with which one candidate was never going to be taken for the best in place of another."""
_TAIL = 0.025
_FEWEST_CHOSEN_FROM = 2
"""An interval is stated as for the best of so many at least (Bonferroni), also where there was one only: at 25 % of
noise, where the prior on the noise ends, two or three rounds of two would hold the truth in 90 % of cases, not 95 %."""
_DOUBT_OF_BEST = 1.2
"""Power of the number of candidates by which the doubt is divided with which a word is said of the best of them; more
than Bonferroni's 1, for it is the noisiest that looks best."""
_LINGERING = 2.0
"""By how much the variance of a mean over rounds grows because neighbouring rounds are alike (first-order correlation
of 0.5: (1 + 0.5) ÷ (1 − 0.5) − 1), for the part of it that is the rounds' own."""


class Outcome(StrEnum):
    """What a comparison came to."""

    FASTER = "faster"
    TIE = "tie"
    AMBIGUOUS = "ambiguous"
    """The noise was too large for the rounds that there were."""
    SLOWER = "slower"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One configuration against another."""

    ratio: Estimate
    """How many times faster the first is; the interval is a 95 % one over all that the best was chosen from."""
    outcome: Outcome
    pairs: int
    slower: float = 0.5
    """Probability that the first is slower than the other."""


class Rounds:
    """Runs in rounds, and what they say together."""

    def __init__(self, log_rates: Sequence[Sequence[float]] | Values, *, candidates: Collection[int] = ()) -> None:
        """`log_rates`: ln(samples per second), a row for each round and a column for each configuration; nan where one
        did not run. `candidates`: the columns among which the best is looked for."""
        self._logs = np.asarray(log_rates, dtype=float)
        self._candidates = candidates
        self._ratios: dict[tuple[int, int], Posterior] = {}
        self._rates: dict[int, Posterior] = {}

    def pairs(self, one: int, other: int) -> int:
        """Rounds in which both ran."""
        return len(self._differences(one, other))

    def compare(self, one: int, other: int) -> Comparison:
        """Column `one` over column `other`. Needs one round in which both ran."""
        pairs = self.pairs(one, other)
        posterior = self.ratio(one, other)
        if pairs < FEWEST_ROUNDS:
            ratio = Estimate(posterior.quantiles(0.5)[0], None).exp()
            return Comparison(ratio=ratio, outcome=Outcome.AMBIGUOUS, pairs=pairs)
        return judge(posterior, pairs, chosen_from=self._rivals(one))

    def is_decided(self, one: int, other: int) -> bool:
        """Whether more rounds would hardly change the word; to be asked after each."""
        if self.pairs(one, other) < FEWEST_ROUNDS:
            return False
        return _word(self.ratio(one, other), _LOOK * self._rivals(one) ** -_DOUBT_OF_BEST) is not Outcome.AMBIGUOUS

    def throughput(self, column: int) -> Estimate:
        """Samples per second of one configuration, as it is in the long run. Needs one run of it."""
        estimate = stated(self.rate(column), chosen_from=self._rivals(column))
        return estimate if len(self._of(column)) >= FEWEST_ROUNDS else Estimate(estimate.value, None)

    def ratio(self, one: int, other: int) -> Posterior:
        """Posterior of ln(throughput of `one` ÷ of `other`)."""
        if one > other:
            return self.ratio(other, one).times(-1.0)
        if (one, other) not in self._ratios:
            scale = self._scale([one, other], known=2).of_another()
            scale = scale.learnt_over_rounds(self._differences(one, other, sign=-1) / math.sqrt(2), runs=2)
            halves = self._differences(one, other) / math.sqrt(2)
            self._ratios[one, other] = locate(halves, scale, runs=2).times(math.sqrt(2))
        return self._ratios[one, other]

    def rate(self, column: int) -> Posterior:
        """Posterior of ln(samples per second) in the long run: over rounds, which differ as well."""
        if column not in self._rates:
            inside = self._scale([column], known=1)
            scale = inside.over_rounds()
            others = [other for other in range(self._logs.shape[1]) if other != column]
            if others:  # what the machine does to whole rounds shows in them as well
                whole = self._logs[:, others]
                whole = whole[~np.isnan(whole).any(axis=1)]
                if len(whole):
                    scale = scale.learnt_from(np.median(whole - np.median(whole, axis=0), axis=1))
            posterior = locate(self._of(column), scale, slow_only=True)
            rounds_own = max(1 - (inside.middle() / posterior.noise.middle()) ** 2, 0.0)
            self._rates[column] = posterior.widened(math.sqrt(1 + _LINGERING * rounds_own))
        return self._rates[column]

    @cached_property
    def spread(self) -> float:
        """Standard deviation of ln(samples per second) between runs of one configuration, inside a round."""
        return self._scale(range(self._logs.shape[1]), known=1).middle()

    def _of(self, column: int) -> Values:
        values = self._logs[:, column]
        return np.asarray(values[~np.isnan(values)])

    def _differences(self, one: int, other: int, sign: int = 1) -> Values:
        """`sign` −1: their sums, whose noise inside a round is as large as that of their differences."""
        values = self._logs[:, one] - sign * self._logs[:, other]
        return np.asarray(values[~np.isnan(values)])

    def _scale(self, first: Sequence[int], known: int) -> Scale:
        """The noise inside a round, from contrasts that are independent of the first `known` − 1 (Helmert's: each
        column with the mean of those before it, `first` leading)."""
        rest = [column for column in range(self._logs.shape[1]) if column not in first]
        order, scale = [*first, *sorted(rest, key=lambda column: self._apart(column, first))], Scale.unknown()
        for place in range(known, len(order)):
            cells = self._logs[:, order[: place + 1]]
            cells = cells[~np.isnan(cells).any(axis=1)]
            contrast = (cells[:, place] - cells[:, :place].mean(axis=1)) * math.sqrt(place / (place + 1))
            scale = scale.learnt_from(contrast, runs=place + 1)
        return scale

    def _apart(self, column: int, first: Sequence[int]) -> float:
        """By how much the rounds disagree about `column` beside `first`."""
        values = self._logs[:, column] - self._logs[:, list(first)].mean(axis=1)
        values = values[~np.isnan(values)]
        return float(values.std()) if len(values) else math.inf

    def _rivals(self, one: int) -> int:
        """How many candidates `one` may have been chosen from by luck, itself included: all but those that are slower
        beyond doubt. What looks for the best of one column looks at no other."""
        if one not in self._candidates:
            return 1
        return sum(self._may_rival(other, one) for other in self._candidates)

    def _may_rival(self, other: int, one: int) -> bool:
        if other == one or self.pairs(other, one) < FEWEST_ROUNDS:
            return True
        return self.ratio(other, one).below(0.0) < _NO_RIVAL


def judge(ln_ratio: Posterior, pairs: int, *, chosen_from: int = 1) -> Comparison:
    """What is said of a ratio whose logarithm is known to such a degree. `chosen_from`: of how many it is the best."""
    outcome = _word(ln_ratio, chosen_from**-_DOUBT_OF_BEST)
    ratio = stated(ln_ratio, chosen_from=chosen_from)
    return Comparison(ratio=ratio, outcome=outcome, pairs=pairs, slower=ln_ratio.below(0.0))


def stated(logarithm: Posterior, *, chosen_from: int = 1) -> Estimate:
    """A figure whose logarithm is known to such a degree, with its 95 % interval."""
    tail = _TAIL / max(chosen_from, _FEWEST_CHOSEN_FROM)
    low, middle, high = logarithm.quantiles(tail, 0.5, 1 - tail)
    return Estimate(middle, Interval(low, high)).exp()


def _word(ln_ratio: Posterior, share: float) -> Outcome:
    """Faster or slower when there is little doubt, and the ratio is no tie. `share`: of the doubt that is allowed."""
    slower, (middle,) = ln_ratio.below(0.0), ln_ratio.quantiles(0.5)
    if slower <= share * SLOWER_AT_MOST:
        return Outcome.FASTER if middle > math.log(TIE) else Outcome.TIE
    if 1 - slower <= share * SLOWER_AT_MOST:
        return Outcome.SLOWER if middle < -math.log(TIE) else Outcome.TIE
    within = ln_ratio.below(_EQUIVALENT) - ln_ratio.below(-_EQUIVALENT)
    return Outcome.TIE if 1 - within <= share * (1 - _SURELY_EQUIVALENT) else Outcome.AMBIGUOUS
