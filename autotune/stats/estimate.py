"""A figure and its interval, from a handful of noisy values of which some are outliers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

CONFIDENCE = 0.95
TRIM = 0.2
"""Share of the values that are left out at each end: a burst of other work hits single runs, and hits them hard."""

_RESAMPLES = 2000
_SEED = 0
"""The same values always give the same interval."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval, of 95 % unless said otherwise."""

    low: float
    high: float

    def exp(self) -> Interval:
        """From log-units back to ratios."""
        return Interval(math.exp(self.low), math.exp(self.high))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval; None where too few values say nothing about the spread."""

    value: float
    interval: Interval | None

    def exp(self) -> Estimate:
        return Estimate(math.exp(self.value), self.interval.exp() if self.interval else None)


def student_t(degrees_of_freedom: int, confidence: float = CONFIDENCE) -> float:
    """Two-sided quantile of Student's t."""
    return float(stdtrit(degrees_of_freedom, (1 + confidence) / 2))


def location(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """20 % trimmed mean, with the wider of two intervals at each end; no interval below two values.

    One is Student's for the trimmed mean, from the winsorised variance (Yuen, Biometrika 61, 1974): right for few
    values. The other is the expanded percentile bootstrap (Hesterberg, The American Statistician 69, 2015, section 5):
    right for skewed ones. Values should be on the scale on which they spread evenly: logarithms of rates.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    count = len(ordered)
    centre = float(_trimmed_mean(ordered))
    if count < 2:
        return Estimate(centre, None)
    half = _student_half_width(ordered, confidence)
    low, high = _bootstrap(ordered, confidence)
    return Estimate(centre, Interval(min(centre - half, low), max(centre + half, high)))


def _cut(count: int) -> int:
    return int(TRIM * count)


def _trimmed_mean(ordered: np.ndarray) -> np.ndarray:
    """Along the last axis, which is sorted."""
    count = ordered.shape[-1]
    cut = _cut(count)
    return np.asarray(ordered[..., cut : count - cut].mean(axis=-1))


def _student_half_width(ordered: np.ndarray, confidence: float) -> float:
    count = len(ordered)
    cut = _cut(count)
    winsorised = np.clip(ordered, ordered[cut], ordered[count - cut - 1])
    standard_error = winsorised.std(ddof=1) / ((1 - 2 * cut / count) * math.sqrt(count))
    return student_t(count - 2 * cut - 1, confidence) * float(standard_error)


def _bootstrap(ordered: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentiles of the resampled statistic, moved outwards by as much as they are too narrow for `count`."""
    count = len(ordered)
    tail = ndtr(-math.sqrt(count / (count - 1)) * student_t(count - 1, confidence))
    picks = np.random.default_rng(_SEED).integers(0, count, (_RESAMPLES, count))
    resampled = _trimmed_mean(np.sort(ordered[picks], axis=1))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)
