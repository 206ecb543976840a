"""What runs are told of earlier ones, and how long they last: each rule with the smallest study that triggers it."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import cast

import pytest
from support.deciding import BASE, BF16, FOUR, TWO, confirming, in_rounds, ran, searched, so_far

from autotune.config import TrainConfig
from autotune.records import Purpose, Rates, SlowBatches, TrialRecord
from autotune.search.decide.confirming import Confirming
from autotune.search.decide.explore import search_trial
from autotune.search.decide.measured_rounds import ACCURACY, MeasuredRounds, batches_without_slow, slow_batches
from autotune.search.decide.rounds import confirming_run
from autotune.search.decide.study import StudySoFar
from autotune.search.performance import PerformanceModel
from autotune.search.policy import EVEN, FEWEST_STEPS, SHORTEST_RUN_S

CALM = in_rounds({BASE: (1000.0, 1000.1, 999.9), TWO: (1500.1, 1499.9, 1500.0)})


def having_loaded(config: TrainConfig, batches: int, slow: int = 0) -> TrialRecord:
    rates = Rates(
        sustained_per_s=1000.0,
        sustained_error=0.001,
        demand_per_s=1000.0,
        demand_error=0.001,
        supply_per_s=2000.0,
        supply_error=0.001,
        fetch_s=0.01,
        slow_batches=SlowBatches(batches=batches, slow=slow, times=5.0 if slow else 1.0),
    )
    return ran(config, 1000.0, rates=rates)


LARGE = BASE.replace(micro_batch_size=64, grad_accum_steps=2)


def test_batches_without_a_slow_one_are_counted_whatever_their_size() -> None:
    assert batches_without_slow([having_loaded(BASE, 30), having_loaded(LARGE, 50)]) == 80
    assert batches_without_slow([having_loaded(BASE, 30), having_loaded(LARGE, 50, slow=1)]) == 0
    assert slow_batches([having_loaded(BASE, 30), having_loaded(LARGE, 50)], LARGE).batches == 50


def noisy(study: StudySoFar, noise: float) -> Confirming:
    now = confirming(study, TWO)
    model = cast(PerformanceModel, SimpleNamespace(noise=noise))
    return now.with_finalists(dataclasses.replace(now.finalists, model=model))


@pytest.mark.parametrize("noise", [0.9 * EVEN, 1.1 * EVEN])
def test_rounds_are_told_of_them_where_runs_differ_little(noise: float) -> None:
    study = so_far([having_loaded(BASE, 70), *searched({BASE: 1000.0, TWO: 1500.0}), *CALM])
    run = confirming_run(noisy(study, noise), TWO, 4, 2.0)
    assert run is not None
    assert run.request.batches_without_slow == (70 if noise < EVEN else 0)


@pytest.mark.parametrize(("again", "are_told"), [(1000.0, True), (2000.0, False)])
def test_trials_are_told_of_them_where_runs_differ_little(again: float, are_told: bool) -> None:
    trials = searched({BASE: 1000.0, TWO: 1500.0})
    study = so_far([*trials, ran(BASE, again, Purpose.REPEAT), having_loaded(LARGE, 70)])
    assert search_trial(study, FOUR).request.batches_without_slow == (70 if are_told else 0)


def test_no_run_has_to_be_known_better_than_the_measuring_is_accurate() -> None:
    measured = MeasuredRounds(so_far([*searched({BASE: 1000.0, TWO: 1500.0}), *CALM]), [TWO])
    assert measured.spread < ACCURACY
    assert measured.well_known == pytest.approx(0.3 * math.hypot(measured.spread, ACCURACY))


def searched_with(baseline: float, best: float) -> list[TrialRecord]:
    return searched({BASE: baseline, TWO: best, FOUR: best, BF16: baseline})


@pytest.mark.parametrize(
    ("baseline", "limit_s", "is_shorter"),
    [
        pytest.param(100.0, 4.0, True, id="its fewest steps take longer"),
        pytest.param(100.0, 8.0, False, id="they do not"),
        pytest.param(1400.0, 0.2, False, id="it is not much slower"),
    ],
)
def test_runs_of_a_baseline_that_is_much_slower_have_the_fewest_steps(
    baseline: float, limit_s: float, is_shorter: bool
) -> None:
    now = confirming(so_far(searched_with(baseline, 1500.0)), TWO)
    takes_s = FEWEST_STEPS * BASE.effective_batch_size / baseline
    assert (takes_s > limit_s) is (is_shorter or baseline > 1000.0)
    assert now.seconds_of(BASE, limit_s) == (min(limit_s, SHORTEST_RUN_S) if is_shorter else limit_s)
    assert now.seconds_of(TWO, limit_s) == limit_s
