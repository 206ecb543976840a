"""Which runs of the confirmation the statistics see: not those that other work spoilt, as long as others tell."""

from __future__ import annotations

import math
from typing import Any

import pytest
from search.test_confirming import SPACE
from support.bench import Bench
from support.simulation import Training

from autotune.config import TrainConfig
from autotune.records import Purpose, Rates, TrialRequest, TrialResult
from autotune.search.decide.measured_rounds import ACCURACY, OF_LOADING, accuracy_of


def spoilt(rounds: set[int], *, marked: bool) -> Training:
    """In these rounds the baseline's blocks take four times as long, each beside other work; whether the machine's
    counters saw it."""

    def training(request: TrialRequest, result: TrialResult) -> TrialResult:
        if request.seed not in rounds or request.config.num_workers or not request.time_limit_s:
            return result
        disturbances = ("contended",) if marked else ()
        blocks = tuple(
            block.model_copy(update={"seconds": 4 * block.seconds, "disturbances": disturbances})
            for block in result.blocks
        )
        return result.model_copy(update={"blocks": blocks})

    return training


def searched(bench: Bench, rounds: set[int], *, marked: bool) -> dict[str, Any]:
    def speed(config: TrainConfig) -> float:
        return 1500.0 if config.num_workers else 1000.0

    backend = bench.backend(speed, noise=0.002, busy=0.0, training=spoilt(rounds, marked=marked))
    best = bench.search(backend, search=SPACE, fresh=True).best
    return dict(best["speedup"])


def test_a_run_that_other_work_spoilt_is_left_out(bench: Bench) -> None:
    speedup = searched(bench, {2}, marked=True)
    assert speedup["ratio"] == pytest.approx(1.5, rel=0.01)
    low, high = speedup["ci95"]
    assert math.log(high / low) < 0.1
    runs = [record for record in bench.folder.read_trials() if record.purpose is Purpose.CONFIRM and record.round == 2]
    workers = [record.result.config.num_workers for record in runs]
    assert sorted(workers) == [0, 0, 2], "it was measured twice, in case the burst was over"


def test_what_decides_is_the_machines_state_and_not_the_speed(bench: Bench) -> None:
    """The same slow run, of a machine that was free, counts."""
    marked, unmarked = searched(bench, {2}, marked=True), searched(bench, {2}, marked=False)
    assert (marked["pairs"], unmarked["pairs"]) == (2, 4), "it takes more rounds to make up for it"
    widths = [math.log(each["ci95"][1] / each["ci95"][0]) for each in (marked, unmarked)]
    assert widths[1] > widths[0], "and they do not quite"


def test_where_every_run_was_disturbed_all_count(bench: Bench) -> None:
    """A machine that is always busy is what there is to measure."""
    speedup = searched(bench, set(range(1, 200)), marked=True)
    assert speedup["ratio"] == pytest.approx(6.0, rel=0.02)


@pytest.mark.parametrize(
    ("workers", "supplies", "accuracy"),
    [
        pytest.param(8, [90.0, 105.0, 300.0], OF_LOADING, id="the loader limits two of three"),
        pytest.param(8, [90.0, 300.0, 300.0], ACCURACY, id="it limits one of three"),
        pytest.param(0, [90.0, 90.0, 90.0], ACCURACY, id="training loads itself"),
        pytest.param(8, [], ACCURACY, id="nobody knows"),
    ],
)
def test_runs_that_the_loader_limits_are_measured_less_well(
    workers: int, supplies: list[float], accuracy: float
) -> None:
    config = TrainConfig(micro_batch_size=8, num_workers=workers, prefetch_factor=2 if workers else None)
    rates = [
        Rates(
            sustained_per_s=80.0,
            sustained_error=0.01,
            demand_per_s=100.0,
            demand_error=0.01,
            supply_per_s=supply,
            supply_error=0.01,
            fetch_s=0.01,
        )
        for supply in supplies
    ]
    assert accuracy_of(config, rates) == accuracy
