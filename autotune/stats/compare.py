"""Which of two configurations is faster, from runs in alternating fresh processes.

Each round gives one pair of runs, and each pair the logarithm of their ratio: what the machine does to a whole round
hits both and cancels. The rounds go on until the answer is clear, so it is asked again after each; the levels of
confidence below pay for those looks. `tests/stats/test_compare.py` measures how often words and intervals are right.

A bootstrap of the same mean was tried in place of Yuen's interval. It draws an outlier several times over and so undoes
the trimming: a comparison of equals took half as many rounds again, and ended with a false word twice as often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from autotune.stats.estimate import Estimate, trimmed

TIE = 1.01
"""A ratio that nobody would change a setting for, and of two finalists no reason to prefer the faster."""
WORTHWHILE = 1.05
"""A speed-up that somebody would want, and that must not be missed."""
FEWEST_PAIRS = 5
"""Fewer say too little about the spread to end a comparison on."""

_EQUIVALENCE = math.sqrt(WORTHWHILE)
"""Half way to a worthwhile difference: a ratio that lies within it for sure is no worthwhile one."""
_LOOK_CONFIDENCE = 0.999
"""For ending the rounds: asked after every one, a lower level would sooner or later be reached by luck."""
_WORD_CONFIDENCE = 0.98
"""For the interval that is stated, and the word: 95 % of them are right, after the looks have chosen when to stop."""
_EQUIVALENCE_CONFIDENCE = 0.90
"""Two one-sided tests at 5 % each (Schuirmann, J. Pharmacokinetics and Biopharmaceutics 15, 1987)."""


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
    """How many times faster the first is; the interval is a 95 % one over all comparisons that were made together."""
    outcome: Outcome
    pairs: int


def compare(log_ratios: Sequence[float], *, comparisons: int = 1) -> Comparison:
    """What the rounds so far say. `log_ratios`: ln(throughput of the one ÷ of the other), one for each round.

    `comparisons`: how many were made together, of which the best was chosen; the intervals then cover all of them
    (Bonferroni). Needs one round.
    """
    ratio = _estimate(log_ratios, _WORD_CONFIDENCE, comparisons)
    outcome = Outcome.TIE if _is_equivalent(log_ratios) else _by_interval(ratio)
    return Comparison(ratio=ratio, outcome=outcome, pairs=len(log_ratios))


def is_decided(log_ratios: Sequence[float], *, comparisons: int = 1) -> bool:
    """Whether more rounds would hardly change the word; to be asked after each."""
    if len(log_ratios) < FEWEST_PAIRS:
        return False
    clear = _by_interval(_estimate(log_ratios, _LOOK_CONFIDENCE, comparisons))
    return clear is not Outcome.AMBIGUOUS or _is_equivalent(log_ratios)


def _estimate(log_ratios: Sequence[float], confidence: float, comparisons: int) -> Estimate:
    return trimmed(log_ratios, 1 - (1 - confidence) / comparisons).exp()


def _by_interval(ratio: Estimate) -> Outcome:
    """Faster or slower when the whole interval lies on one side of 1, and the ratio is no tie."""
    if ratio.interval is None:
        return Outcome.AMBIGUOUS
    if ratio.interval.low > 1:
        return Outcome.FASTER if ratio.value > TIE else Outcome.TIE
    if ratio.interval.high < 1:
        return Outcome.SLOWER if ratio.value < 1 / TIE else Outcome.TIE
    return Outcome.AMBIGUOUS


def _is_equivalent(log_ratios: Sequence[float]) -> bool:
    """Whether the ratio is near 1 for sure."""
    interval = trimmed(log_ratios, _EQUIVALENCE_CONFIDENCE).exp().interval
    return (
        len(log_ratios) >= FEWEST_PAIRS
        and interval is not None
        and interval.low > 1 / _EQUIVALENCE
        and interval.high < _EQUIVALENCE
    )
