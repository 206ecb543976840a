"""How long a sample takes to load: what loader processes share, what the cores do not give them, and what waits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autotune.config import TrainConfig
from autotune.records import Block, Rates, TrialResult, TrialStatus
from autotune.search.performance import Observation, observe
from autotune.search.performance.learn_loading import learn_loading
from autotune.search.performance.loading import Beside, Loading

CORES = 4
SAMPLES = 32
WORKERS = np.array([1.0, 2.0, 4.0, 8.0, 64.0])


def known(alone_s: float, *, sharing: float = 0.0, computing: float = 1.0, **changes: Any) -> Loading:
    parameters = np.array([np.log(alone_s), sharing, 0.0, np.log(computing)])
    return Loading(parameters, np.diag([0.01, 0.04, 0.0, 0.0]), CORES, counted=True, **changes)


def fed_by(workers: int) -> TrainConfig:
    feeding: dict[str, Any] = {"num_workers": workers, "prefetch_factor": 2} if workers else {}
    return TrainConfig(micro_batch_size=SAMPLES, num_threads=1, **feeding)


def waiting(seconds_per_sample: float) -> Observation:
    """What a step shows, in a record without rates, that does nothing but wait for its data."""
    return Observation(
        status="ok", wall_s=5.0, overhead_s=1.0, samples_per_s=1.0, data_wait_s=SAMPLES * seconds_per_sample
    )


def rated(workers: int, wall_s: float, cpu_s: float | None, step_s: float = 1e-6) -> tuple[TrainConfig, Observation]:
    """A trial with rates; `wall_s` and `cpu_s`: of one process for a sample, `step_s`: of the step for one."""
    seen = Observation(
        status="ok",
        wall_s=5.0,
        overhead_s=1.0,
        samples_per_s=1.0,
        compute_s=SAMPLES * step_s,
        supply_s=wall_s / max(workers, 1),
        supply_error=0.01,
        fetch_cpu_s=cpu_s,
    )
    return fed_by(workers), seen


def seconds_per_sample(loading: Loading, workers: int) -> float:
    mean, _ = loading.predict(np.array([float(workers)]))
    return float(np.exp(mean[0]))


def doubt(loading: Loading, workers: int) -> float:
    _, gradient = loading.predict(np.array([float(workers)]))
    return float(loading.deviation(gradient)[0])


def test_computing_processes_load_as_many_times_faster_as_there_are_cores_for_them() -> None:
    mean, _ = known(0.008).predict(WORKERS)
    np.testing.assert_allclose(np.exp(mean), [0.008, 0.004, 0.002, 0.002, 0.002], rtol=0.02)


def test_waiting_processes_load_as_many_times_faster_as_there_are_of_them_until_their_computing_fills_the_cores() -> (
    None
):
    mean, _ = known(0.008, computing=0.1).predict(WORKERS)
    np.testing.assert_allclose(np.exp(mean), [0.008, 0.004, 0.002, 0.001, 0.0002], rtol=0.02)


def test_in_the_training_process_nothing_is_shared() -> None:
    loading = known(0.008, sharing=0.5)
    assert seconds_per_sample(loading, 0) == pytest.approx(0.008)
    assert seconds_per_sample(loading, 1) == pytest.approx(0.008 * np.exp(0.5))
    assert doubt(loading, 0) == pytest.approx(0.1)
    assert doubt(loading, 0) < doubt(loading, 1)


def test_a_step_that_computes_on_the_same_cores_leaves_fewer_of_them() -> None:
    """Four threads that are busy all the time, and four processes: half of the cores each."""
    alone, _ = known(0.008).predict(np.array([4.0, 4.0]))
    beside, _ = known(0.008).predict(np.array([4.0, 4.0]), Beside(np.array([4.0, 1.0]), np.array([0.1, 0.0])))
    np.testing.assert_allclose(np.exp(beside - alone), [2.0, 1.0], rtol=0.05)


@pytest.mark.parametrize(("computing", "times"), [(1.0, 2.0), (0.02, 1.01)])
def test_processes_slow_a_step_down_by_what_they_compute(computing: float, times: float) -> None:
    loading = known(0.008, computing=computing)
    slower = np.exp(loading.slows_down(np.array([0.0, 4.0, 4.0]), np.array([4.0, 4.0, 1.0])))
    np.testing.assert_allclose(slower, [1.0, times, 1.0], rtol=0.02)


@pytest.mark.parametrize("overlaps", [False, True])
def test_without_rates_processes_that_no_core_is_left_for_tell_what_as_many_as_cores_would(overlaps: bool) -> None:
    seen = waiting(0.002)
    paces = [
        seconds_per_sample(learn_loading([(fed_by(told), seen)] * 3, CORES, overlaps=overlaps), asked)
        for told, asked in [(8, 4), (4, 8), (4, 4), (2, 2), (2, 4)]
    ]
    assert paces[:4] == pytest.approx([0.002] * 4, rel=0.15)
    assert paces[4] == pytest.approx(0.001, rel=0.15)


@pytest.mark.parametrize("workers", [0, 2, 4, 8])
def test_what_a_few_trials_measured_is_predicted_for_their_like(workers: int) -> None:
    without_rates = learn_loading([(fed_by(workers), waiting(0.002))] * 5, CORES, overlaps=False)
    with_rates = learn_loading([rated(workers, 0.002 * max(workers, 1), 0.0015)] * 5, CORES, overlaps=False)
    for loading in (without_rates, with_rates):
        assert seconds_per_sample(loading, workers) == pytest.approx(0.002, rel=0.05)
        assert doubt(loading, workers) < 0.1


def test_one_trial_without_processes_tells_what_any_number_of_them_would_deliver() -> None:
    """A sample takes 20 ms, of which 1 ms computes: 16 processes keep four cores busy with it, 80 fill them."""
    loading = learn_loading([rated(0, 0.020, 0.001)], CORES, overlaps=True)
    assert loading.waits
    assert loading.computing == pytest.approx(0.05, rel=0.2)
    for workers in (1, 4, 16):
        assert seconds_per_sample(loading, workers) == pytest.approx(0.020 * np.exp(0.1) / workers, rel=0.1)
    assert 0.3 < doubt(loading, 16) < 0.7, "what handing over costs, nobody has seen"


def test_where_loading_computes_more_processes_than_cores_promise_nothing() -> None:
    loading = learn_loading([rated(0, 0.020, 0.0199), rated(2, 0.021, 0.0205)], CORES, overlaps=True)
    assert not loading.waits
    assert seconds_per_sample(loading, 16) == pytest.approx(seconds_per_sample(loading, 4), rel=0.05)


def test_a_crowd_on_the_cores_is_not_taken_for_waiting() -> None:
    """Eight processes on four cores: each takes twice as long as it computes, though nothing of loading waits."""
    loading = learn_loading([rated(0, 0.010, 0.010), rated(8, 0.020, 0.010)], CORES, overlaps=True)
    assert not loading.waits
    assert seconds_per_sample(loading, 32) == pytest.approx(0.0025, rel=0.1)


def test_a_lock_that_all_processes_wait_for_is_seen() -> None:
    """Twice as many processes take twice as long each."""
    loading = learn_loading([rated(0, 0.010, 1e-4), rated(4, 0.040, 1e-4), rated(8, 0.080, 1e-4)], CORES, overlaps=True)
    assert 0.007 < seconds_per_sample(loading, 16) < 0.013


def test_a_step_that_never_waits_still_tells_what_its_loader_delivers() -> None:
    """By its rates. Without, it tells only that loading is no slower."""
    fast_loader = learn_loading([rated(4, 0.004, 0.001, step_s=0.01)] * 2, CORES, overlaps=True)
    assert seconds_per_sample(fast_loader, 4) == pytest.approx(0.001, rel=0.1)
    unrated = Observation(status="ok", wall_s=5.0, overhead_s=1.0, samples_per_s=1.0, compute_s=SAMPLES * 1e-4)
    bounded = learn_loading([(fed_by(4), unrated)], CORES, overlaps=True)
    assert seconds_per_sample(bounded, 4) < 1.3e-4
    assert doubt(bounded, 4) > 0.05


def test_before_any_trial_nothing_is_known() -> None:
    loading = learn_loading([], CORES, overlaps=False)
    assert doubt(loading, 0) == pytest.approx(2.0)
    assert not loading.waits


def test_without_counted_cpu_seconds_loading_is_taken_to_compute() -> None:
    loading = learn_loading([rated(0, 0.020, None), rated(4, 0.020, None)], CORES, overlaps=True)
    assert not loading.waits
    assert seconds_per_sample(loading, 16) == pytest.approx(0.005, rel=0.1)


@pytest.mark.parametrize("workers", [1.0, 4.0, 16.0])
def test_the_gradient_is_that_of_the_prediction(workers: float) -> None:
    at = known(0.01, sharing=0.2, computing=0.3)
    _, gradient = at.predict(np.array([workers]))
    for number in range(4):
        moved = at.parameters.copy()
        moved[number] += 1e-6
        there, _ = Loading(moved, at.doubts, CORES, counted=True).predict(np.array([workers]))
        here, _ = at.predict(np.array([workers]))
        assert gradient[0, number] == pytest.approx((there - here)[0] / 1e-6, abs=1e-3)


RATES = Rates(
    sustained_per_s=800.0,
    sustained_error=0.02,
    demand_per_s=1000.0,
    demand_error=0.01,
    supply_per_s=900.0,
    supply_error=0.03,
    fetch_s=0.2,
    fetch_cpu_s=0.16,
)


def trial(rates: Rates | None, **config: Any) -> TrialResult:
    phases: dict[Any, float] = {"data_wait": 0.4, "copy": 0.1, "forward_backward": 0.3, "optimizer": 0.2}
    block = Block(steps=10, samples=640, seconds=1.0, phases=phases)
    return TrialResult(
        config=TrainConfig(micro_batch_size=32, grad_accum_steps=2, num_workers=4, **config),
        status=TrialStatus.OK,
        seed=0,
        blocks=(block,),
        rates=rates,
        wall_s=3.0,
    )


def test_rates_go_before_phases_which_still_tell_forward_and_backward_from_the_optimizer() -> None:
    seen = observe(trial(RATES))
    assert seen.samples_per_s == 800.0
    assert seen.compute_s + seen.optimizer_s == pytest.approx(0.064), "64 samples at 1,000 a second"
    assert seen.compute_s / seen.optimizer_s == pytest.approx(2.0)
    assert seen.data_wait_s == pytest.approx(64 / 800 - 64 / 1000)
    assert seen.supply_s == pytest.approx(1 / 900)
    assert seen.fetch_cpu_s == pytest.approx(0.005)
    assert (seen.relative_error, seen.step_error, seen.supply_error) == (0.02, 0.01, 0.03)
    assert Observation.from_dict(seen.to_dict()) == seen


def test_rates_are_of_all_processes_loading_of_one() -> None:
    seen = observe(trial(RATES, world_size=2))
    assert seen.supply_s == pytest.approx(2 / 900)
    assert seen.compute_s + seen.optimizer_s == pytest.approx(0.128)


def test_without_rates_all_is_as_it_was() -> None:
    seen = observe(trial(None))
    assert (seen.samples_per_s, seen.supply_s, seen.fetch_cpu_s) == (640.0, None, None)
    assert seen.data_wait_s == pytest.approx(0.04)
    before = {key: value for key, value in seen.to_dict().items() if not key.startswith(("supply", "fetch", "step"))}
    assert Observation.from_dict(before) == seen, "attributes of an earlier version's trial"
