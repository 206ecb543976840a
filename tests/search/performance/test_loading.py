"""How long a sample takes to load: what loader processes share, and what the cores do not give them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autotune.config import TrainConfig
from autotune.search.performance import Observation
from autotune.search.performance.loading import Loading, learn_loading

CORES = 4
SAMPLES = 32
WORKERS = np.array([1, 2, 4, 8, 64])


def fed_by(workers: int) -> TrainConfig:
    feeding: dict[str, Any] = {"num_workers": workers, "prefetch_factor": 2} if workers else {}
    return TrainConfig(micro_batch_size=SAMPLES, num_threads=1, **feeding)


def waiting(seconds_per_sample: float) -> Observation:
    """What a step shows that does nothing but wait for its data."""
    return Observation(
        status="ok", wall_s=5.0, overhead_s=1.0, samples_per_s=1.0, data_wait_s=SAMPLES * seconds_per_sample
    )


def seconds_per_sample(loading: Loading, workers: int) -> float:
    mean, _ = loading.predict(np.array([workers]))
    return float(np.exp(mean[0]))


def test_loader_processes_load_as_many_times_faster_as_there_are_cores_for_them() -> None:
    loading = Loading(alone=np.log(0.008), sharing=0.0, cores=CORES)
    mean, _ = loading.predict(WORKERS)
    np.testing.assert_allclose(np.exp(mean), [0.008, 0.004, 0.002, 0.002, 0.002])


def test_in_the_training_process_nothing_is_shared() -> None:
    mean, doubt = Loading(alone=np.log(0.008), alone_doubt=0.1, sharing=0.5, cores=CORES).predict(np.array([0, 1]))
    np.testing.assert_allclose(np.exp(mean), [0.008, 0.008 * np.exp(0.5)])
    assert doubt[0] == 0.1 < doubt[1]


@pytest.mark.parametrize("overlaps", [False, True])
def test_processes_that_no_core_is_left_for_tell_what_as_many_as_cores_would(overlaps: bool) -> None:
    seen = waiting(0.002)
    crowded = learn_loading([(fed_by(8), seen)], CORES, overlaps=overlaps)
    assert crowded == learn_loading([(fed_by(4), seen)], CORES, overlaps=overlaps)
    assert crowded != learn_loading([(fed_by(2), seen)], CORES, overlaps=overlaps)


@pytest.mark.parametrize("workers", [0, 2, 4, 8])
def test_what_a_few_trials_measured_is_predicted_for_their_like(workers: int) -> None:
    loading = learn_loading([(fed_by(workers), waiting(0.002))] * 5, CORES, overlaps=False)
    assert seconds_per_sample(loading, workers) == pytest.approx(0.002, rel=0.05)


def test_a_trial_on_every_core_predicts_that_more_processes_gain_nothing() -> None:
    loading = learn_loading([(fed_by(4), waiting(0.002))] * 5, CORES, overlaps=False)
    assert seconds_per_sample(loading, 8) == pytest.approx(0.002, rel=0.05)
    assert seconds_per_sample(loading, 2) == pytest.approx(0.004, rel=0.05)
