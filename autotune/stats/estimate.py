"""A figure and its interval, from a handful of noisy values of which some are outliers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

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

    def is_within(self, share: float) -> bool:
        """Whether its ends, of a ratio or a rate, lie less than ±`share` apart from their middle."""
        return self.high / self.low < (1 + share) / (1 - share)

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


def trimmed(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """20 % trimmed mean, with Student's interval for it, from the winsorised variance; none below two values.

    Yuen, Biometrika 61, 1974. For values that spread evenly about their centre but for outliers, as logarithms of
    ratios of two runs do: other work hits either.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    centre = float(_trimmed_mean(ordered))
    if len(ordered) < 2:
        return Estimate(centre, None)
    half = _student_half_width(ordered, confidence)
    return Estimate(centre, Interval(centre - half, centre + half))


def location(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """20 % trimmed mean, with the wider of two intervals at each end; none below two values.

    One is `trimmed`'s; the other the expanded percentile bootstrap (Hesterberg, The American Statistician 69, 2015,
    section 5), for values that are skewed, as the rates of runs are on a machine that other work only ever slows down.
    """
    estimate = trimmed(values, confidence)
    if estimate.interval is None:
        return estimate
    low, high = _bootstrap(np.sort(np.asarray(values, dtype=float)), confidence)
    return Estimate(estimate.value, Interval(min(estimate.interval.low, low), max(estimate.interval.high, high)))


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
    low, high = np.quantile(_resampling(count) @ ordered, [tail, 1 - tail])
    return float(low), float(high)


@cache
def _resampling(count: int) -> np.ndarray:
    """Share of each of `count` ordered values in the trimmed mean of each resample.

    Half of the resamples mirror the other half, so that opposite values have the opposite interval.
    """
    cut = _cut(count)
    half = _RESAMPLES // 2
    picks = np.sort(np.random.default_rng(_SEED).integers(0, count, (half, count)), axis=1)[:, cut : count - cut]
    shares = np.zeros((half, count))
    np.add.at(shares, (np.arange(half)[:, None], picks), 1 / picks.shape[1])
    return np.concatenate([shares, shares[:, ::-1]])
