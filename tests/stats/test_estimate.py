"""The interval of a handful of values: it has to hold the truth in 95 of 100, whatever a busy machine does to some."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.stats import trim_mean
from support.blocks import Values

from autotune.stats import Estimate, Interval, location, student_t

Source = Callable[[np.random.Generator, int], Values]


def normal(generator: np.random.Generator, count: int) -> Values:
    return generator.normal(0, 1, count)


def skewed(generator: np.random.Generator, count: int) -> Values:
    return generator.lognormal(0, 0.3, count)


def spiked(generator: np.random.Generator, count: int) -> Values:
    """One value in ten is off by up to 25 standard deviations, to either side: the log ratio of two spiked runs."""
    off = generator.choice([-1, 1], count) * generator.uniform(5, 25, count)
    return normal(generator, count) + np.where(generator.random(count) < 0.1, off, 0.0)


def slowed(generator: np.random.Generator, count: int) -> Values:
    """One value in twenty is off by up to 25 standard deviations, always downwards: the throughput of spiked runs."""
    return normal(generator, count) - np.where(generator.random(count) < 0.05, generator.uniform(5, 25, count), 0.0)


def ends(estimate: Estimate) -> tuple[float, float]:
    assert estimate.interval is not None
    return estimate.interval.low, estimate.interval.high


def coverage(source: Source, count: int, truth: float, *, confidence: float = 0.95, trials: int) -> float:
    generator = np.random.default_rng([count, trials])
    intervals = [ends(location(source(generator, count), confidence)) for _ in range(trials)]
    return statistics.fmean(low <= truth <= high for low, high in intervals)


def limit(source: Source, count: int) -> float:
    """What `location` of that many values aims at: up to four are not trimmed."""
    share = int(0.2 * count) / count
    return float(trim_mean(source(np.random.default_rng(0), 1_000_000), share))


COUNTS = [2, 3, 5, 8, 15, 30]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("source", [normal, spiked])
def test_the_interval_covers_the_centre_in_95_of_100(source: Source, count: int) -> None:
    assert coverage(source, count, 0.0, trials=500 if count < 10 else 200) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("source", [normal, spiked])
def test_the_interval_covers_the_centre_in_2820_of_3000(source: Source, count: int) -> None:
    assert coverage(source, count, 0.0, trials=3000) >= 0.94


@pytest.mark.parametrize("count", COUNTS)
def test_the_interval_of_skewed_values_covers_what_it_aims_at(count: int) -> None:
    assert coverage(skewed, count, limit(skewed, count), trials=500 if count < 10 else 200) >= 0.92


@pytest.mark.parametrize("count", [5, 8, 15])
def test_runs_that_were_slowed_down_do_not_hide_the_speed_of_the_others(count: int) -> None:
    assert coverage(slowed, count, 0.0, trials=500 if count < 10 else 200) >= 0.93


@pytest.mark.parametrize(("confidence", "least"), [(0.9, 0.87), (0.995, 0.985)])
def test_other_confidences_cover_as_asked(confidence: float, least: float) -> None:
    found = {count: coverage(spiked, count, 0.0, confidence=confidence, trials=400) for count in (3, 5, 8)}
    assert min(found.values()) >= least, found


@pytest.mark.parametrize("count", COUNTS)
def test_it_is_no_wider_than_it_need_be(count: int) -> None:
    """Never narrower than Student's interval, which is exact for these; at most half as wide again."""
    generator = np.random.default_rng(count)
    samples = [normal(generator, count) for _ in range(100)]
    width = statistics.median(high - low for low, high in (ends(location(sample)) for sample in samples))
    exact = statistics.median(
        2 * student_t(count - 1) * float(sample.std(ddof=1)) / math.sqrt(count) for sample in samples
    )
    freedom = count - 2 * int(0.2 * count) - 1
    trimmed_costs = student_t(freedom) / student_t(count - 1)
    assert exact * 0.999 <= width <= 1.5 * trimmed_costs * exact


@pytest.mark.parametrize("count", range(1, 13))
def test_the_figure_is_the_trimmed_mean(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    assert location(values).value == pytest.approx(trim_mean(values, 0.2))


def test_a_fifth_is_left_out_at_either_end() -> None:
    assert location([1, 100, 2, 3, -50]).value == 2.0
    assert location([1, 100, 2, 3]).value == 26.5, "of four, nothing"


def test_an_interval_worked_by_hand() -> None:
    """1 … 5 winsorise to 2, 2, 3, 4, 4 of variance 1: standard error 1/(0.6 · √5) = 0.74536, t(2) = 4.30265.

    No resample reaches beyond 1 … 5, so the bootstrap does not widen it.
    """
    assert ends(location([3, 1, 5, 2, 4])) == pytest.approx((3 - 3.20701, 3 + 3.20701), abs=1e-4)


def test_two_values_have_students_interval() -> None:
    """Mean 2, standard deviation √2, t(1) = 12.7062: half width 12.7062 · √2/√2."""
    assert ends(location([1, 3])) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-3)


def test_skewed_values_reach_further_to_the_side_of_their_tail() -> None:
    values = np.exp(np.linspace(-2, 2, 15))
    centre = location(values).value
    low, high = ends(location(values))
    assert high - centre > 1.15 * (centre - low)


def test_one_value_alone_has_no_interval() -> None:
    assert location([3.0]) == Estimate(3.0, None)


def test_equal_values_have_an_interval_of_one_point() -> None:
    assert ends(location([0.25] * 6)) == (0.25, 0.25)


def samples() -> list[Values]:
    generator = np.random.default_rng(1)
    return [spiked(generator, count) for count in (2, 3, 5, 8, 10, 13, 20, 30)]


@pytest.mark.parametrize("values", samples(), ids=len)
def test_a_shift_and_a_change_of_unit_go_through(values: Values) -> None:
    plain, changed = location(values), location(1000 + 60 * values)
    assert changed.value == pytest.approx(1000 + 60 * plain.value)
    assert ends(changed) == pytest.approx([1000 + 60 * end for end in ends(plain)])


@pytest.mark.parametrize("values", samples(), ids=len)
def test_the_opposite_values_have_the_opposite_interval(values: Values) -> None:
    low, high = ends(location(values))
    assert ends(location(-values)) == pytest.approx((-high, -low))


@pytest.mark.parametrize("values", samples(), ids=len)
def test_the_same_values_in_any_order_always_give_the_same(values: Values) -> None:
    assert location(values) == location(values) == location(values[::-1]) == location(sorted(values))


@pytest.mark.parametrize("values", samples(), ids=len)
def test_more_confidence_is_a_wider_interval(values: Values) -> None:
    widths = [high - low for low, high in (ends(location(values, share)) for share in (0.8, 0.9, 0.95, 0.99, 0.999))]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_from_logarithms_back_to_ratios() -> None:
    estimate = Estimate(math.log(2), Interval(0.0, math.log(3))).exp()
    assert estimate.value == pytest.approx(2)
    assert ends(estimate) == pytest.approx((1, 3))
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


def test_plain_lists_do_as_well_as_arrays() -> None:
    values: Sequence[float] = [1.0, 2.0, 4.0]
    assert location(values) == location(np.array(values))
