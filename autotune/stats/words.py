"""What is said of a ratio: a word, an interval, and what both have to allow for because it is the best of several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from autotune.stats.estimate import Estimate, Interval
from autotune.stats.posterior import Posterior

TIE = 1.01
"""A ratio that nobody would change a setting for, and of two finalists no reason to prefer the faster."""
WORTHWHILE = 1.05
"""A speed-up that somebody would want, and that must not be missed."""
SLOWER_AT_MOST = 0.025
"""Probability of being slower than the baseline with which a configuration is still called faster."""

_SHORTEST, _LONGEST = 1e-6, 1e15
"""Numbers between them are written without an exponent."""
_EQUIVALENT = math.log(WORTHWHILE) / 2
"""Half way to a worthwhile difference: a ratio that lies within it for sure is no worthwhile one."""
_SURELY_EQUIVALENT = 0.95
_TAIL = 0.025
_FEWEST_CHOSEN_FROM = 2
"""An interval is stated as for the best of so many at least (Bonferroni), also where there was one only: at 25 % of
noise, where the prior on the noise ends, two or three rounds of two would hold the truth in 90 % of cases, not 95 %."""


def written(value: float, digits: int = 4) -> str:
    """`value` with so many significant digits, without an exponent where a person can read it: 17083.4 → `17,083`."""
    if abs(value) >= 10 ** (digits - 1) and abs(value) < _LONGEST:
        return f"{value:,.0f}"
    text = f"{value:.{digits}g}"
    return format(Decimal(text), "f") if _SHORTEST <= abs(value) < _LONGEST else text


class Outcome(StrEnum):
    """Result of a comparison."""

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


def judge(ln_ratio: Posterior, pairs: int, *, chosen_from: int = 1) -> Comparison:
    """What is said of a ratio whose logarithm is known to such a degree. `chosen_from`: of how many it is the best."""
    slower, ratio = ln_ratio.below(0.0), stated(ln_ratio, chosen_from=chosen_from)
    return Comparison(ratio=ratio, outcome=word(ln_ratio, [slower]), pairs=pairs, slower=slower)


def stated(logarithm: Posterior, *, chosen_from: int = 1) -> Estimate:
    """A figure whose logarithm is known to such a degree, with its 95 % interval."""
    tail = _TAIL / max(chosen_from, _FEWEST_CHOSEN_FROM)
    low, middle, high = logarithm.quantiles(tail, 0.5, 1 - tail)
    return Estimate(middle, Interval(low, high)).exp()


def word(ln_ratio: Posterior, doubts: Sequence[float], *, share: float = 1.0) -> Outcome:
    """Faster or slower when there is little doubt, and the ratio is no tie.

    `doubts`: how likely each of those is slower of which this one, the first, is the best. `share`: of the doubt that
    is allowed.
    """
    allowed, (middle,) = share * SLOWER_AT_MOST, ln_ratio.quantiles(0.5)
    if of_best(doubts) <= allowed:
        return Outcome.FASTER if middle > math.log(TIE) else Outcome.TIE
    if 1 - doubts[0] <= allowed / len(doubts):
        return Outcome.SLOWER if middle < -math.log(TIE) else Outcome.TIE
    within = ln_ratio.below(_EQUIVALENT) - ln_ratio.below(-_EQUIVALENT)
    return Outcome.TIE if 1 - within <= share / len(doubts) * (1 - _SURELY_EQUIVALENT) else Outcome.AMBIGUOUS


def of_best(doubts: Sequence[float]) -> float:
    """The first of several doubts, made as large as it has to be because any of them might have been the one that
    counts: Hochberg's step-up (Biometrika 75, 1988).

    Where all are small, there is no luck in that one of them is, and the largest needs no correction; of which one
    alone is small, it is multiplied by their number, as Bonferroni's. It holds for doubts that rise and fall together,
    as those do that share a baseline.
    """
    return min(doubt * (1 + sum(other > doubt for other in doubts)) for doubt in doubts if doubt >= doubts[0])
