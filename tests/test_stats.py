"""Throughput with its error, and the comparison of configurations run in alternating rounds."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

import numpy as np
import pytest

from autotune.records import Block
from autotune.stats import (
    RoundTable,
    relative_standard_error,
    student_t,
    throughput,
    throughput_interval,
)


def block(samples: int, seconds: float, steps: int = 1) -> Block:
    return Block(steps=steps, samples=samples, seconds=seconds, data_wait_s=0.0)


def random_blocks(count: int, seed: int) -> list[Block]:
    """Unequal blocks of about 100 samples/s."""
    generator = random.Random(seed)
    sizes = [generator.choice([40, 50, 60]) for _ in range(count)]
    return [block(size, size / 100 * generator.lognormvariate(0, 0.1)) for size in sizes]


def alternating(steps: int, first: int = 0) -> float:
    """Seconds of that many steps of a loader that stalls every second one: 6 ms, 36 ms, 6 ms, …"""
    return sum(0.036 if (first + step) % 2 else 0.006 for step in range(steps))


def test_throughput_is_total_over_total() -> None:
    assert throughput([block(100, 1.0), block(300, 1.0)]) == 200.0
    assert throughput([block(100, 1.0), block(100, 3.0)]) == 50.0, "not the mean of the two rates, 66.7"


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_stalled_steps_that_alternate_with_fast_ones_do_not_mislead(steps: int) -> None:
    """Mean 21 ms: 32 samples a step are 1524 samples/s, whatever the steps in a block; the median would say 5333."""
    blocks = [block(32 * steps, alternating(steps, first=n * steps), steps) for n in range(40)]
    assert throughput(blocks) == pytest.approx(32 / 0.021)
    interval = throughput_interval(blocks)
    assert interval is not None
    assert interval.low * 0.999_999 <= 32 / 0.021 <= interval.high * 1.000_001


def test_fewer_than_two_blocks_have_no_known_error() -> None:
    assert relative_standard_error([block(100, 1.0)]) == math.inf
    assert throughput_interval([block(100, 1.0)]) is None


def test_identical_blocks_have_no_error() -> None:
    assert relative_standard_error([block(100, 0.5)] * 4) == pytest.approx(0, abs=1e-12)
    interval = throughput_interval([block(100, 0.5)] * 4)
    assert interval is not None
    assert [interval.low, interval.high] == pytest.approx([200.0, 200.0])


def test_blocks_of_other_lengths_at_one_rate_have_no_error() -> None:
    assert relative_standard_error([block(100, 0.5), block(200, 1.0), block(20, 0.1)]) == pytest.approx(0, abs=1e-12)


def test_the_error_of_equal_blocks_in_closed_form() -> None:
    """Blocks of 100 samples in 0.9 s and 1.1 s: R = 100, residuals ±10, SE(R)/R = √(2/1 · 200) / 200 = 0.1."""
    assert relative_standard_error([block(100, 0.9), block(100, 1.1)]) == pytest.approx(0.1)


def test_the_error_is_that_of_a_bootstrap() -> None:
    blocks = random_blocks(60, seed=1)
    samples = np.array([b.samples for b in blocks])
    seconds = np.array([b.seconds for b in blocks])
    drawn = np.random.default_rng(0).integers(0, len(blocks), size=(4000, len(blocks)))
    rates = samples[drawn].sum(axis=1) / seconds[drawn].sum(axis=1)
    assert relative_standard_error(blocks) == pytest.approx(rates.std() / throughput(blocks), rel=0.06)


def test_the_error_falls_with_the_root_of_the_number_of_blocks() -> None:
    blocks = random_blocks(20, seed=2)
    ratio = relative_standard_error(blocks) / relative_standard_error(blocks * 16)
    assert ratio == pytest.approx(4 * math.sqrt(20 / 19), rel=0.01)


def test_the_interval_of_one_run_covers_in_95_of_100() -> None:
    intervals = [throughput_interval(random_blocks(10, seed)) for seed in range(2000)]
    truth = 100 / math.exp(0.1**2 / 2)
    covered = statistics.fmean(i is not None and i.low <= truth <= i.high for i in intervals)
    assert 0.92 <= covered <= 0.98


def test_an_interval_never_goes_below_zero() -> None:
    interval = throughput_interval([block(100, 0.01), block(100, 10.0)])
    assert interval is not None
    assert interval.low == 0.0


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (4, 2.776), (30, 2.042), (100_000, 1.960)])
def test_students_t_as_in_the_tables(freedom: int, quantile: float) -> None:
    assert student_t(freedom) == pytest.approx(quantile, abs=1e-3)


def test_several_comparisons_share_the_five_percent() -> None:
    """Five at once: each at 99 %, two-sided, whose quantile for ten degrees of freedom is 3.169."""
    assert student_t(10, comparisons=5) == pytest.approx(3.169, abs=1e-3)


def logs(values: Sequence[float]) -> list[float]:
    return [math.exp(value) for value in values]


def worked_example() -> RoundTable:
    """Two configurations, three rounds, in logarithms: a = 1, 3, 2 and b = 0, 1, 2.

    Means 2 and 1, rounds 0.5, 2, 2, grand mean 1.5. Residuals of a: 0, 0.5, -0.5; of b the negatives; their squares
    sum to 1 on 2 degrees of freedom. Half width: t(2) · √(2 · 0.5 / 3) = 4.3027 · 0.57735 = 2.48414.
    """
    return RoundTable({"a": logs([1, 3, 2]), "b": logs([0, 1, 2])})


def test_a_ratio_worked_by_hand() -> None:
    estimate = worked_example().ratio("a", "b")
    assert estimate.value == pytest.approx(math.e)
    assert estimate.interval is not None
    assert math.log(estimate.interval.low) == pytest.approx(1 - 2.48414, abs=1e-4)
    assert math.log(estimate.interval.high) == pytest.approx(1 + 2.48414, abs=1e-4)


def test_the_ratio_of_two_is_the_paired_t_interval() -> None:
    """Of the differences 1, 2, 0: mean 1, standard deviation 1, t(2) · 1/√3."""
    differences = [1.0, 2.0, 0.0]
    half = student_t(2) * statistics.stdev(differences) / math.sqrt(3)
    interval = worked_example().ratio("a", "b").interval
    assert interval is not None
    assert math.log(interval.high) - 1 == pytest.approx(half)


def test_a_throughput_worked_by_hand() -> None:
    """Squares of a around its own mean: 2; variance 2/2 = 1; half width t(2) · √(1/3)."""
    estimate = worked_example().throughput("a")
    assert estimate.value == pytest.approx(math.exp(2))
    assert estimate.interval is not None
    assert math.log(estimate.interval.high) == pytest.approx(2 + 4.30265 / math.sqrt(3), abs=1e-4)


def test_the_throughput_of_one_does_not_depend_on_the_noise_of_another() -> None:
    calm, noisy = (RoundTable({"a": [100.0, 110.0, 90.0], "b": b}) for b in ([50.0, 50.0, 50.0], [10.0, 90.0, 50.0]))
    assert calm.throughput("a") == noisy.throughput("a")


def test_a_ratio_and_its_inverse_agree() -> None:
    table = worked_example()
    there, back = table.ratio("a", "b"), table.ratio("b", "a")
    assert there.value * back.value == pytest.approx(1)
    assert there.interval is not None
    assert back.interval is not None
    assert there.interval.low * back.interval.high == pytest.approx(1)


def test_what_hits_a_whole_round_cancels_in_the_ratio() -> None:
    """One round on a machine three times slower."""
    steady = RoundTable({"a": [200, 206, 198], "b": [100, 101, 102]}).ratio("a", "b")
    drifting = RoundTable({"a": [200, 206 / 3, 198], "b": [100, 101 / 3, 102]}).ratio("a", "b")
    assert drifting.value == pytest.approx(steady.value)
    assert steady.interval is not None
    assert drifting.interval is not None
    assert [drifting.interval.low, drifting.interval.high] == pytest.approx([steady.interval.low, steady.interval.high])


def test_a_configuration_against_itself_is_exactly_one() -> None:
    table = RoundTable({"a": [100, 110, 90], "b": [200, 230, 170]})
    assert table.ratio("a", "a").value == 1.0


def test_rounds_without_noise_have_an_interval_of_one_point() -> None:
    interval = RoundTable({"a": [200.0, 100.0], "b": [100.0, 50.0]}).ratio("a", "b").interval
    assert interval is not None
    assert [interval.low, interval.high] == pytest.approx([2.0, 2.0])


def test_one_round_says_nothing_about_the_spread() -> None:
    table = RoundTable({"a": [200.0], "b": [100.0]})
    assert table.ratio("a", "b").value == pytest.approx(2.0)
    assert table.ratio("a", "b").interval is None
    assert table.throughput("a").interval is None


def test_one_configuration_alone_has_a_throughput_but_no_ratio_with_an_interval() -> None:
    table = RoundTable({"a": [100.0, 110.0, 90.0]})
    assert table.ratio("a", "a").interval is None
    assert table.throughput("a").interval is not None


def test_a_figure_missing_in_a_round_is_refused() -> None:
    with pytest.raises(ValueError, match="every configuration needs a figure in every round"):
        RoundTable({"a": [1.0, 2.0], "b": [1.0]})


@pytest.mark.parametrize("figures", [{}, {"a": []}, {"a": [], "b": []}])
def test_no_round_at_all_is_refused(figures: dict[str, list[float]]) -> None:
    with pytest.raises(ValueError, match="there must be one"):
        RoundTable(figures)


def test_more_comparisons_make_wider_intervals_around_the_same_figure() -> None:
    table = worked_example()
    estimates = [table.ratio("a", "b", comparisons=count) for count in (1, 2, 3)]
    assert len({estimate.value for estimate in estimates}) == 1
    widths = [math.log(e.interval.high / e.interval.low) for e in estimates if e.interval]
    assert widths == sorted(widths)
    assert widths[2] / widths[0] == pytest.approx(student_t(2, 3) / student_t(2))


NOISE, DRIFT = 0.03, 0.15
TRUTH = {"baseline": 100.0, "a": 150.0, "b": 148.0, "c": 100.0}


def simulated(seed: int, rounds: int = 4) -> RoundTable:
    """Processes that differ by 3 %, on a machine that drifts by 15 % from round to round."""
    generator = random.Random(seed)
    drift = [generator.gauss(0, DRIFT) for _ in range(rounds)]
    return RoundTable(
        {
            name: [speed * math.exp(shift + generator.gauss(0, NOISE)) for shift in drift]
            for name, speed in TRUTH.items()
        }
    )


@pytest.mark.parametrize("name", ["a", "c"])
def test_the_interval_of_a_ratio_covers_in_95_of_100_however_the_rounds_drift(name: str) -> None:
    truth = TRUTH[name] / TRUTH["baseline"]
    intervals = [simulated(seed).ratio(name, "baseline").interval for seed in range(2000)]
    covered = statistics.fmean(i is not None and i.low <= truth <= i.high for i in intervals)
    assert 0.92 <= covered <= 0.98


def test_identical_configurations_look_faster_beyond_doubt_in_5_of_100_on_either_side_together() -> None:
    intervals = [simulated(seed).ratio("c", "baseline").interval for seed in range(2000)]
    doubtless = statistics.fmean(i is not None and not i.low <= 1 <= i.high for i in intervals)
    assert 0.02 <= doubtless <= 0.08


def test_intervals_of_several_ratios_hold_together() -> None:
    others = ["a", "b", "c"]

    def all_hold(table: RoundTable) -> bool:
        intervals = {name: table.ratio(name, "baseline", comparisons=len(others)).interval for name in others}
        return all(i is not None and i.low <= TRUTH[name] / 100 <= i.high for name, i in intervals.items())

    assert statistics.fmean(all_hold(simulated(seed)) for seed in range(2000)) >= 0.94
