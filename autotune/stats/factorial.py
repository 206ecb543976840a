"""A two-level factorial in rounds: what each factor does, and what factors do together beyond their parts.

Each round holds every combination of levels once and is a block: contrasts are taken inside it, so that what the
machine does to a whole round cancels, and the spread of a contrast over the rounds is its error (Box, Hunter & Hunter,
Statistics for Experimenters, 2nd ed., chapters 4 and 5).

Means and Student's t, not the posterior of `rounds`: a contrast is already a mean over many processes, and a single
outlier moves it little.
`tests/stats/test_factorial.py` measures how often the intervals are right, outliers included.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from autotune.stats.estimate import CONFIDENCE, Estimate, Interval, student_t

Cell = tuple[bool, ...]
"""A combination of levels: for each factor, whether it is on."""


def cells(factors: int) -> list[Cell]:
    """All 2^factors combinations; the first has every factor off, the last every one on."""
    return list(itertools.product((False, True), repeat=factors))


def effects(factors: int) -> Iterator[tuple[int, ...]]:
    """The factors of every main effect, then those of every interaction, of two factors, of three, …"""
    for count in range(1, factors + 1):
        yield from itertools.combinations(range(factors), count)


def contrast(values: Mapping[Cell, float], effect: Collection[int]) -> float:
    """The effect of one round, from the value of each of its cells.

    A main effect is the mean with the factor less the mean without it. An interaction of two is how much the effect of
    the one grows when the other is switched on, a mean over all other factors; of three, how much that grows. Of
    logarithms, effects are ratios: where one of two factors is off, the other has its simple effect; both together give
    the product of those times their interaction. (Textbooks halve interactions once more for each further factor.)
    """
    signed = [value if _is_even(cell, effect) else -value for cell, value in values.items()]
    return math.fsum(signed) / (len(values) >> len(effect))


def mean_interval(values: Sequence[float], *, together: int = 1) -> Estimate:
    """Mean with Student's 95 % interval; none below two values.

    `together`: how many intervals are stated side by side; they are then wide enough that all of them hold at once with
    95 % (Bonferroni).
    """
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Estimate(mean, None)
    confidence = 1 - (1 - CONFIDENCE) / together
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = student_t(len(values) - 1, confidence) * error
    return Estimate(mean, Interval(mean - half, mean + half))


def _is_even(cell: Cell, effect: Collection[int]) -> bool:
    """Whether an even number of the effect's factors is off."""
    return sum(not cell[factor] for factor in effect) % 2 == 0
