"""Figures and intervals."""

from __future__ import annotations

import math

import pytest

from autotune.stats import Estimate, Interval, student_t


def test_from_logarithms_back_to_ratios() -> None:
    estimate = Estimate(math.log(2), Interval(0.0, math.log(3))).exp()
    assert estimate.value == pytest.approx(2)
    assert estimate.interval is not None
    assert (estimate.interval.low, estimate.interval.high) == pytest.approx((1, 3))
    assert Estimate(0.0, None).exp() == Estimate(1.0, None)


@pytest.mark.parametrize(
    ("freedom", "confidence", "quantile"),
    [
        (1, 0.95, 12.706),
        (4, 0.95, 2.776),
        (30, 0.95, 2.042),
        (100_000, 0.95, 1.960),
        (10, 0.99, 3.169),
        (4, 0.9, 2.132),
    ],
)
def test_students_t_as_in_the_tables(freedom: int, confidence: float, quantile: float) -> None:
    assert student_t(freedom, confidence) == pytest.approx(quantile, abs=1e-3)
