"""Throughput with its error: what the blocks of one run can tell of it, above all where they are not independent."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from support.blocks import (
    Values,
    alternating_s,
    block,
    blocks_of,
    bursts_s,
    drifting_s,
    independent_s,
    lingering_s,
)

from autotune.config import TrainConfig
from autotune.records import Block, TrialResult, TrialStatus
from autotune.stats import (
    noise_has_settled,
    relative_standard_error,
    rests_on_disturbed,
    student_t,
    throughput,
    throughput_interval,
    undisturbed,
)
from autotune.stats.sustained import sustained_error, sustained_per_s

Source = Callable[[np.random.Generator, int], Values]


def streams(source: Source, count: int, how_many: int) -> list[list[Block]]:
    generator = np.random.default_rng([count, how_many])
    return [blocks_of(source(generator, count)) for _ in range(how_many)]


def unequal_blocks(count: int, seed: int) -> list[Block]:
    """Of about 100 samples/s."""
    generator = np.random.default_rng([seed, count])
    sizes = generator.choice([40, 50, 60], count)
    seconds = sizes / 100 * generator.lognormal(0, 0.1, count)
    return [block(int(size), float(each)) for size, each in zip(sizes, seconds, strict=True)]


def test_throughput_is_total_over_total() -> None:
    assert throughput([block(100, 1.0), block(300, 1.0)]) == 200.0
    assert throughput([block(100, 1.0), block(100, 3.0)]) == 50.0, "not the mean of the two rates, 66.7"


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_stalled_steps_that_alternate_with_fast_ones_do_not_mislead(steps: int) -> None:
    """Mean 21 ms: 32 samples a step are 1524 samples/s, whatever the steps in a block; the median would say 5333."""
    blocks = [block(32 * steps, alternating_s(steps, first=n * steps), steps) for n in range(40)]
    assert throughput(blocks) == pytest.approx(32 / 0.021)
    interval = throughput_interval(blocks)
    assert interval is not None
    assert interval.low * 0.999_999 <= 32 / 0.021 <= interval.high * 1.000_001


class TestError:
    def test_fewer_than_two_blocks_have_no_known_one(self) -> None:
        assert relative_standard_error([block(100, 1.0)]) == math.inf
        assert throughput_interval([block(100, 1.0)]) is None

    @pytest.mark.parametrize("count", [2, 4, 12, 50])
    def test_identical_blocks_have_none(self, count: int) -> None:
        assert relative_standard_error([block(100, 0.5)] * count) == pytest.approx(0, abs=1e-12)
        interval = throughput_interval([block(100, 0.5)] * count)
        assert interval is not None
        assert [interval.low, interval.high] == pytest.approx([200.0, 200.0])

    def test_blocks_of_other_lengths_at_one_rate_have_none(self) -> None:
        blocks = [block(100, 0.5), block(200, 1.0), block(20, 0.1)]
        assert relative_standard_error(blocks * 5) == pytest.approx(0, abs=1e-12)

    def test_in_closed_form(self) -> None:
        """Blocks of 100 samples in 0.9 s and 1.1 s: R = 100, residuals ±10, SE(R)/R = √(2/1 · 200) / 200 = 0.1."""
        assert relative_standard_error([block(100, 0.9), block(100, 1.1)]) == pytest.approx(0.1)

    def test_twelve_blocks_are_also_six_pairs(self) -> None:
        """0.9, 0.9, 1.1, 1.1 s, …: one by one √(12/11 · 1200) / 1200 = 0.0302; six pairs with residuals of ±20 samples
        √(6/5 · 2400) / 1200 = 0.0447; three fours, without any residual, are too few."""
        twelve = blocks_of(np.array([0.9, 0.9, 1.1, 1.1] * 3))
        assert relative_standard_error(twelve) == pytest.approx(math.sqrt(6 / 5 * 2400) / 1200)

    def test_eleven_blocks_are_not(self) -> None:
        eleven = blocks_of(np.array([0.9, 0.9, 1.1, 1.1] * 3)[:11])
        assert relative_standard_error(eleven) == pytest.approx(naive_error(eleven))

    def test_alternation_makes_no_smaller_than_the_blocks_one_by_one(self) -> None:
        twelve = blocks_of(np.array([0.9, 1.1] * 6))
        assert relative_standard_error(twelve) == pytest.approx(math.sqrt(12 / 11 * 1200) / 1200)

    @pytest.mark.parametrize(("count", "least", "most"), [(5, 0.92, 1.08), (11, 0.92, 1.08), (48, 1.0, 1.25)])
    def test_of_independent_blocks_is_the_spread_of_the_throughput(self, count: int, least: float, most: float) -> None:
        """By brute force: 500 runs. With chunks to choose the largest from, it is some 10 % too large."""
        runs = [unequal_blocks(count, seed) for seed in range(500)]
        assert least <= figures(runs)["claimed"] <= most


class TestInterval:
    @pytest.mark.parametrize("count", [3, 10, 48])
    def test_covers_in_95_of_100(self, count: int) -> None:
        truth = 100 / math.exp(0.1**2 / 2)
        intervals = [throughput_interval(unequal_blocks(count, seed)) for seed in range(600)]
        covered = statistics.fmean(i is not None and i.low <= truth <= i.high for i in intervals)
        assert 0.93 <= covered <= 0.99

    def test_never_goes_below_zero(self) -> None:
        interval = throughput_interval([block(100, 0.01), block(100, 10.0)])
        assert interval is not None
        assert interval.low == 0.0
        assert interval.high > throughput([block(100, 0.01), block(100, 10.0)])


def naive_error(blocks: Sequence[Block]) -> float:
    """As if all blocks were independent."""
    ratio, count = throughput(blocks), len(blocks)
    squares = sum((each.samples - ratio * each.seconds) ** 2 for each in blocks)
    return math.sqrt(count / (count - 1) * squares) / sum(each.samples for each in blocks)


def figures(runs: Sequence[Sequence[Block]]) -> dict[str, float]:
    """Claimed error and the naive one, both ÷ the spread that the throughput really has over the runs; and how often
    their intervals hold the throughput of all."""
    rates = [throughput(run) for run in runs]
    truth = throughput([each for run in runs for each in run])
    spread = statistics.pstdev(rates) / truth
    figures = {}
    for name, error in (("claimed", relative_standard_error), ("naive", naive_error)):
        errors = [error(run) for run in runs]
        figures[name] = math.sqrt(statistics.fmean(each**2 for each in errors)) / spread
        halves = [student_t(len(run) - 1) * each for run, each in zip(runs, errors, strict=True)]
        figures[name + " covers"] = statistics.fmean(
            abs(rate / truth - 1) <= half * rate / truth for rate, half in zip(rates, halves, strict=True)
        )
    return figures


LONG = pytest.mark.slow
"""Four times the blocks."""


@pytest.mark.parametrize(
    ("source", "count", "least", "naive", "covers", "naive_covers"),
    [
        (lingering_s, 96, 0.75, 0.40, 0.82, 0.60),
        (bursts_s, 96, 0.85, 0.50, 0.78, 0.65),
        pytest.param(lingering_s, 384, 0.95, 0.40, 0.90, 0.60, marks=LONG),
        pytest.param(bursts_s, 384, 0.95, 0.50, 0.88, 0.65, marks=LONG),
    ],
)
def test_bursts_that_span_blocks_are_seen(
    source: Source, count: int, least: float, naive: float, covers: float, naive_covers: float
) -> None:
    found = figures(streams(source, count, 250))
    assert found["claimed"] >= least, found
    assert found["naive"] <= naive, found
    assert found["claimed covers"] >= covers, found
    assert found["naive covers"] <= naive_covers, found


class TestUndisturbed:
    free = block(100, 1.0)
    busy = free.model_copy(update={"disturbances": ("contended",)})
    hot = free.model_copy(update={"disturbances": ("throttled",)})

    def test_blocks_of_a_busy_or_throttled_machine_are_left_out(self) -> None:
        blocks = [self.free, self.busy, self.free, self.hot, self.free]
        assert undisturbed(blocks) == [self.free] * 3

    def test_all_count_where_none_was_disturbed(self) -> None:
        assert undisturbed([self.free] * 3) == [self.free] * 3

    def test_all_count_where_none_was_free(self) -> None:
        blocks = [self.busy] * 4
        assert undisturbed(blocks) == blocks
        assert rests_on_disturbed(blocks)

    def test_one_that_was_free_is_enough(self) -> None:
        """A run of long steps beside bursts of other work has no other, and is several times too slow with them."""
        blocks = [self.busy, self.free, self.hot]
        assert undisturbed(blocks) == [self.free]
        assert not rests_on_disturbed(blocks)

    def test_how_well_one_is_known_the_disturbed_ones_say(self) -> None:
        slow = block(100, 2.0).model_copy(update={"disturbances": ("contended",)})
        run = TrialResult(config=TrainConfig(), status=TrialStatus.OK, seed=0, wall_s=3.0, blocks=[self.free, slow])
        assert sustained_per_s(run) == 100.0
        assert 0.1 < sustained_error(run) < 1.0

    def test_slow_blocks_of_a_free_machine_count(self) -> None:
        slow = block(100, 50.0)
        assert undisturbed([self.free, slow, self.free]) == [self.free, slow, self.free]


class TestSettledNoise:
    """Asked after each block, as a trial does."""

    @staticmethod
    def ends_at(blocks: Sequence[Block]) -> int | None:
        """The number of blocks at which the trial ends."""
        return next((count for count in range(1, len(blocks) + 1) if noise_has_settled(blocks[:count])), None)

    @staticmethod
    def ended(runs: Sequence[Sequence[Block]]) -> int:
        return sum(TestSettledNoise.ends_at(run) is not None for run in runs)

    @pytest.mark.parametrize("count", [16, 24, 32, 64, 128])
    def test_independent_blocks_are_worth_going_on(self, count: int) -> None:
        settled = sum(noise_has_settled(run) for run in streams(independent_s, count, 200))
        assert settled <= 20, f"{settled} of 200"

    def test_a_trial_of_independent_blocks_is_hardly_ever_ended(self) -> None:
        ended = self.ended(streams(independent_s, 128, 200))
        assert ended <= 20, f"{ended} of 200"

    def test_a_trial_that_drifts_is_ended(self) -> None:
        ended = self.ended(streams(drifting_s, 128, 100))
        assert ended >= 85, f"{ended} of 100"

    def test_a_machine_that_grows_ever_slower_is_not_waited_for(self) -> None:
        seconds = np.linspace(1, 1.3, 64) * np.random.default_rng(0).lognormal(0, 0.01, 64)
        assert noise_has_settled(blocks_of(seconds))

    def test_alternation_without_noise_never_ends_a_trial(self) -> None:
        blocks = [block(32 * 7, alternating_s(7, first=7 * number), 7) for number in range(96)]
        assert self.ends_at(blocks) is None

    def test_a_handful_of_blocks_says_nothing(self) -> None:
        runs = streams(drifting_s, 15, 50)
        assert self.ended(runs) == 0

    def test_blocks_without_noise_say_nothing(self) -> None:
        assert not noise_has_settled([block(100, 0.5)] * 64)
