"""Which of several configurations is faster, and how fast each is, from rounds in which each runs once.

The confirmation is a randomised block design: rounds × configurations, a fresh process in each cell. What the machine
does to a whole round hits all alike and cancels in a difference inside it; how much one run differs from the next is
learnt from all configurations together, with room for one that is noisier than the others and for runs that other work
slowed down (`autotune.stats.noise`), and from how far the two that are compared move together from round to round:
runs that hardly differ between rounds differ no more inside them. The rounds go on until the answer is clear, so it is
asked again after each, and what is emitted is the best of several (`autotune.stats.words`).
`benchmarks/comparison_shares.py` measures how often words and intervals are right.

What stood here before, and what was considered instead:
- Yuen's trimmed mean of the paired differences with Student's t at 98 %, Bonferroni on top. It forgets all other
  configurations: two rounds leave one degree of freedom, and an interval of a factor 11,700 either way.
- Residuals of the two-way fit pooled, shrunk towards 5 % with three degrees of freedom: fits 5 % to 20 % of noise. At
  0.2 % and two rounds the prior alone makes the estimate of the noise 3.5 %, 17 times too large.
- The noise of a pair without its sums where other configurations tell of it: where one is three times noisier,
  identical ones are called faster in 3 % to 4 % instead of 4 % to 5 %, but after two rounds of a calm machine intervals
  are 1.4 times as wide.
- Bonferroni over the finalists: three that are twice as fast would be called so after two rounds of 10 % noise in 97 %
  of cases. That all three are is no luck (`of_best`).
- Robust weights by iterated least squares: with two rounds an outlier and its partner have the same residual, and a fit
  has to settle on one of them. The posterior here keeps both in its interval.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from autotune.stats.estimate import Estimate
from autotune.stats.likelihood import Values
from autotune.stats.luck import luck
from autotune.stats.noise import Scale
from autotune.stats.posterior import Posterior, locate
from autotune.stats.words import Comparison, Outcome, judge, stated, word

FEWEST_ROUNDS = 2
"""One says nothing about the spread."""

_LOOK = 0.1
"""Share of each level of doubt that a look may use up which ends the rounds: there is one after every round."""
_NO_RIVAL = 0.99
"""Probability of being slower with which one candidate was never going to be taken for the best in place of another."""
_LINGERING = 2.0
"""By how much the variance of a mean over rounds grows because neighbouring rounds are alike (first-order correlation
of 0.5: (1 + 0.5) ÷ (1 − 0.5) − 1), for the part of it that is the rounds' own."""
_SLOW = 0.25
"""Standard deviation of what changes more slowly than a confirmation takes, as a share of that of one run: more rounds
in the same minutes do not show it. Two cores that swing by ±5 % once in five minutes, beside runs that differ by 13 %,
have 0.27."""


class Rounds:
    """Runs in rounds, and what they say together."""

    def __init__(
        self,
        log_rates: Sequence[Sequence[float]] | Values,
        *,
        candidates: Collection[int] = (),
        before: Sequence[float] | Values | None = None,
    ) -> None:
        """`log_rates`: ln(samples per second), a row for each round and a column for each configuration; nan where one
        did not run. `candidates`: the columns among which the best is looked for. `before`: the same of one run of each
        before the rounds, by which some were chosen: it tells how much runs differ, and no rate."""
        self._logs = np.asarray(log_rates, dtype=float)
        self._before = np.full(self._logs.shape[1], math.nan) if before is None else np.asarray(before, dtype=float)
        self._candidates = candidates
        self._ratios: dict[tuple[int, int], Posterior] = {}
        self._rates: dict[int, Posterior] = {}

    def with_run(self, column: int, log_rate: float) -> Rounds:
        """These and one more round, in which one configuration ran alone: it tells of that one's throughput, and of no
        ratio."""
        alone = np.full((1, self._logs.shape[1]), math.nan)
        alone[0, column] = log_rate
        return Rounds(np.vstack([self._logs, alone]), candidates=self._candidates, before=self._before)

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
        rivals = self._rivals(one)
        doubts, likely = self._doubts(rivals, other), posterior.moved(-self._luck(rivals))
        found = judge(likely, pairs, chosen_from=len(rivals))
        return replace(found, outcome=word(likely, doubts), slower=doubts[0])  # doubts allow for luck themselves

    def is_decided(self, one: int, other: int) -> bool:
        """Whether more rounds would hardly change the word; to be asked after each."""
        if self.pairs(one, other) < FEWEST_ROUNDS:
            return False
        rivals = self._rivals(one)
        likely = self.ratio(one, other).moved(-self._luck(rivals))
        return word(likely, self._doubts(rivals, other), share=_LOOK) is not Outcome.AMBIGUOUS

    def expected_loss(self, one: int, other: int) -> float:
        """Mean loss in ln(samples per second) by preferring `one` where `other` may be faster: the expected
        opportunity cost of Chick & Inoue (Operations Research 49, 2001). Needs one round in which both ran."""
        return self.ratio(one, other).expected_loss()

    def throughput(self, column: int, *, now: bool = False) -> Estimate:
        """Samples per second of one configuration, as it is in the long run, or these minutes. Needs one run of it."""
        rate, rivals = self.rate_now(column) if now else self.rate(column), self._rivals(column)
        estimate = stated(rate.moved(-self._luck(rivals)), chosen_from=len(rivals))
        return estimate if len(self._of(column)) >= FEWEST_ROUNDS else Estimate(estimate.value, None)

    def ratio(self, one: int, other: int) -> Posterior:
        """Posterior of ln(throughput of `one` ÷ of `other`)."""
        if one > other:
            return self.ratio(other, one).times(-1.0)
        if (one, other) not in self._ratios:
            scale = self._scale([one, other], known=2).of_another()
            scale = scale.learnt_over_rounds(self._differences(one, other, sign=-1) / math.sqrt(2), runs=2)
            halves = self._differences(one, other) / math.sqrt(2)
            scale = _knowing(scale, halves, (self._before[one] - self._before[other]) / math.sqrt(2), runs=2)
            self._ratios[one, other] = locate(halves, scale, runs=2).times(math.sqrt(2))
        return self._ratios[one, other]

    def likely_ratio(self, one: int, other: int) -> Posterior:
        """The same of two that may well be alike: without what is probably luck of what one of them seems faster by."""
        return self.ratio(one, other).moved(self._above(other, [one]) - self._above(one, [other]))

    def rate(self, column: int) -> Posterior:
        """Posterior of ln(samples per second) in the long run: over rounds, which differ as well, and over hours."""
        runs = len(self._of(column))
        posterior = self.rate_now(column)
        return posterior.widened(math.sqrt(1 + runs * _SLOW**2))

    def rate_now(self, column: int) -> Posterior:
        """Posterior of ln(samples per second) over rounds like these: more of them sharpen it."""
        if column not in self._rates:
            inside = self._scale([column], known=1)
            scale = inside.over_rounds()
            others = [other for other in range(self._logs.shape[1]) if other != column]
            if others:  # what the machine does to whole rounds shows in them as well
                whole = self._logs[:, others]
                whole = whole[~np.isnan(whole).any(axis=1)]
                if len(whole):
                    scale = scale.learnt_from(np.median(whole - np.median(whole, axis=0), axis=1))
            scale = _knowing(scale, self._of(column), self._before[column])
            posterior = locate(self._of(column), scale, slow_only=True)
            rounds_own = max(1 - (inside.middle() / posterior.noise.middle()) ** 2, 0.0)
            self._rates[column] = posterior.widened(math.sqrt(1 + _LINGERING * rounds_own))
        return self._rates[column]

    @cached_property
    def spread(self) -> float:
        """Standard deviation of ln(samples per second) between runs of one configuration, inside a round."""
        return self.spread_of(())

    def spread_of(self, runs: Iterable[Values], *, cautious: bool = False) -> float:
        """The same of any two runs, by the rounds and by such series of runs of one configuration each. `cautious`: as
        much as their variance is on average, by all that it may be."""
        scale = self._scale([0], known=1)
        for alike in runs:
            scale = scale.learnt_from(alike)
        return scale.root_mean_square() if cautious else scale.middle()

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
        """By how much the rounds disagree about `column` beside `first`; of those that ran in fewer than two, which
        would leave contrasts with later columns nothing to tell, nobody knows."""
        values = self._logs[:, column] - self._logs[:, list(first)].mean(axis=1)
        values = values[~np.isnan(values)]
        return float(values.std()) if len(values) > 1 else math.inf

    def _rivals(self, one: int) -> list[int]:
        """`one`, then the candidates in place of which it may have been chosen by luck: all but those that are slower
        for sure. What looks for the best of one column looks at no other."""
        if one not in self._candidates:
            return [one]
        return [one, *(other for other in self._candidates if other != one and self._may_rival(other, one))]

    def _luck(self, rivals: Sequence[int]) -> float:
        """How far the mean of the runs of the first probably lies above its true one, because of `rivals` it was taken
        for the best; at least 0, as nobody is promised more than was measured. Runs that none of them had beside it are
        not those that it was chosen by."""
        one, *others = rivals
        chosen_by = max((self.pairs(one, other) for other in others), default=0)
        return max(self._above(one, others), 0.0) * chosen_by / len(self._of(one)) if chosen_by else 0.0

    def _above(self, one: int, others: Sequence[int]) -> float:
        """How far one probably lies above its true place in the rounds that it had beside others."""
        leads = {other: self.ratio(other, one) for other in others if self.pairs(one, other)}
        if not leads:
            return 0.0
        variances = np.array([_variance(lead) for lead in leads.values()])
        own = variances.min() / 2  # a rival that something slowed down once says little of either
        values = np.array([0.0, *(lead.quantiles(0.5)[0] for lead in leads.values())])
        return luck(values, np.array([own, *(variances - own)]))

    def _doubts(self, columns: Sequence[int], other: int) -> list[float]:
        """For each of the columns, how likely it is slower than `other`; 1/2 where too few rounds tell."""
        return [
            self.ratio(column, other).below(0.0) if self.pairs(column, other) >= FEWEST_ROUNDS else 0.5
            for column in columns
        ]

    def _may_rival(self, other: int, one: int) -> bool:
        if self.pairs(other, one) < FEWEST_ROUNDS:
            return True
        return self.ratio(other, one).below(0.0) < _NO_RIVAL


def _variance(posterior: Posterior) -> float:
    """Variance from its middle two thirds, as of a normal distribution."""
    low, high = posterior.quantiles(0.16, 0.84)
    return (high - low) ** 2 / 4


def _knowing(scale: Scale, values: Values, before: float, runs: int = 1) -> Scale:
    """Sharpened by how far a value from before the rounds lies from theirs."""
    count = len(values)
    if not count or math.isnan(before):
        return scale
    return scale.learnt_from_deviation((before - values.mean()) * math.sqrt(count / (count + 1)), runs)
