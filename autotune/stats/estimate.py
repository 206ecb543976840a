"""A figure and its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from scipy.special import stdtrit

CONFIDENCE = 0.95


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


@lru_cache(maxsize=1024)  # asked for at each block of a trial
def student_t(degrees_of_freedom: int, confidence: float = CONFIDENCE) -> float:
    """Two-sided quantile of Student's t."""
    return float(stdtrit(degrees_of_freedom, (1 + confidence) / 2))
