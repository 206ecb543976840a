"""What runs of one configuration say together."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import numpy as np
import pytest

from autotune.config import TrainConfig
from autotune.search.performance import Observation
from autotune.search.performance.repeats import Repeats, pooled, repeats

ONE, OTHER = TrainConfig(micro_batch_size=8), TrainConfig(micro_batch_size=16)


def seen(samples_per_s: float | None, error: float = 0.01, compute_s: float = 1.0) -> Observation:
    return Observation(
        status="ok" if samples_per_s else "oom",
        wall_s=3.0,
        overhead_s=1.0,
        samples_per_s=samples_per_s,
        relative_error=error,
        compute_s=compute_s,
    )


def test_noise_is_what_runs_of_one_configuration_differ_by() -> None:
    runs = [(ONE, seen(100.0)), (OTHER, seen(900.0)), (ONE, seen(110.0)), (OTHER, seen(800.0)), (OTHER, seen(900.0))]
    found = repeats(runs)
    logs = [[math.log(100), math.log(110)], [math.log(900), math.log(800), math.log(900)]]
    assert found.freedom == 1 + 2
    assert found.squares == pytest.approx(sum((len(each) - 1) * statistics.variance(each) for each in logs))
    assert found.within == pytest.approx(0.01**2)


def test_one_run_each_and_runs_without_a_measurement_say_nothing() -> None:
    assert repeats([(ONE, seen(100.0)), (ONE, seen(None)), (OTHER, seen(300.0))]) == Repeats()


def test_the_likeliest_noise_is_the_one_that_was_drawn() -> None:
    random, between, within = np.random.default_rng(0), 0.08, 0.03
    logs = random.normal(0, math.hypot(between, within), 400)
    configs = [TrainConfig(micro_batch_size=size) for size in range(1, 201)]
    found = repeats((configs[place // 2], seen(math.exp(value), within)) for place, value in enumerate(logs))
    scales = np.geomspace(0.01, 0.5, 200)
    likeliest = scales[int(np.argmax([found.log_likelihood(scale) for scale in scales]))]
    assert likeliest == pytest.approx(between, rel=0.1)


def test_runs_of_one_configuration_are_averaged_where_noise_is_alike() -> None:
    trials = [(ONE, seen(100.0, 0.02, compute_s=4.0)), (OTHER, seen(50.0))]
    (config, mean), untouched = pooled(trials, [(ONE, seen(400.0, 0.02, compute_s=1.0)), (ONE, seen(None))])
    assert config == ONE
    assert (mean.samples_per_s, mean.compute_s) == (pytest.approx(200.0), pytest.approx(2.0))
    assert mean.relative_error == pytest.approx(0.02 / math.sqrt(2))
    assert (mean.runs, untouched) == (2, trials[1])


def test_slow_batches_of_all_runs_are_counted_together() -> None:
    runs = [replace(seen(100.0), loaded_batches=50, slow_batches=slow, slow_times=5.0) for slow in (0, 1)]
    (_, mean), *_ = pooled([(ONE, runs[0])], [(ONE, runs[1])])
    assert (mean.loaded_batches, mean.slow_batches, mean.slow_times) == (100, 1, 5.0)


def test_a_trial_that_measured_nothing_stays_one() -> None:
    failed = (ONE, seen(None))
    assert pooled([failed], [(ONE, seen(100.0))]) == [failed]
