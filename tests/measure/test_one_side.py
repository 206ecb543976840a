"""Each side of a training run without the other, against whole trials and against the truth."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from support.virtual_training import SAMPLES, VirtualTraining

from autotune.config import TrainConfig
from autotune.execution.simulated import SimulatedBackend, VirtualClock, World
from autotune.execution.simulated.catalogue import CPU, H200, worlds
from autotune.execution.simulated.process import Luck, TrainingProcess
from autotune.measure import ReadyBatches, drain
from autotune.records import Disturbance, MachineState, SideRate, TrialRequest, TrialResult

CALM = dataclasses.replace(H200, noise=dataclasses.replace(H200.noise, between=0.0))


class Machine:
    def find_workers(self) -> None:
        pass

    def start(self) -> None:
        pass

    def read(self) -> MachineState:
        return MachineState(available_memory_bytes=0, resident_bytes=0)


class Disturbed:
    """Judges so many stretches to be disturbed."""

    def __init__(self, stretches: int) -> None:
        self.left = stretches

    def __call__(self, _state: MachineState, _seconds: float) -> tuple[Disturbance, ...]:
        self.left -= 1
        return ("contended",) if self.left >= 0 else ()


def drained(training: VirtualTraining, judge: Any = None, **request: Any) -> SideRate:
    workers = len(training.read().fetches)
    config = TrainConfig(micro_batch_size=SAMPLES, num_workers=workers, prefetch_factor=2 if workers else None)
    asked = TrialRequest(config=config, seed=0, time_limit_s=2.0, side="loader", **request)
    rate = drain(training, training, asked, machine=Machine(), judge=judge or Disturbed(0))
    assert rate is not None
    return rate


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_what_a_drained_loader_delivers_is_what_its_processes_load(workers: int) -> None:
    rate = drained(VirtualTraining(workers=workers, fetch_s=0.02))
    assert rate.per_s == pytest.approx(SAMPLES * max(workers, 1) / 0.02, rel=1e-6)
    assert rate.fetch_s == pytest.approx(0.02)
    assert rate.fetch_cpu_s == pytest.approx(0.01)


def test_the_first_batch_of_each_process_does_not_count() -> None:
    training = VirtualTraining(workers=4, fetch_s=lambda batch: 0.5 if batch < 4 else 0.02)
    assert drained(training).fetch_s == pytest.approx(0.02)


def test_slow_batches_are_waited_for() -> None:
    training = VirtualTraining(workers=4, fetch_s=lambda batch: 0.1 if batch % 50 == 7 else 0.01)
    rate = drained(training, target_relative_error=0.1)
    assert rate.slow_batches.slow >= 3
    assert rate.fetch_s == pytest.approx((0.1 + 49 * 0.01) / 50, rel=0.1)


def test_what_was_drained_while_others_disturbed_does_not_count() -> None:
    training = VirtualTraining(workers=2, fetch_s=lambda batch: 0.03 if batch < 50 else 0.01)
    assert drained(training, Disturbed(5)).fetch_s == pytest.approx(0.01)


def test_a_disturbance_that_stays_ends_the_waiting() -> None:
    rate = drained(VirtualTraining(workers=2, fetch_s=0.05), Disturbed(10**6))
    assert rate.per_s == pytest.approx(2 * SAMPLES / 0.05, rel=1e-6)
    assert 4.0 <= rate.seconds < 5.0


def test_a_loader_that_takes_longer_for_a_batch_than_there_is_time_still_says_something() -> None:
    rate = drained(VirtualTraining(workers=2, fetch_s=3.0))
    assert rate.per_s == pytest.approx(2 * SAMPLES / 3.0)


def test_ready_batches_come_again_and_again_and_nobody_waits() -> None:
    ready = ReadyBatches("abc", lambda: 1.0)
    assert list(itertools.islice(ready, 7)) == list("abcabca")
    assert ready.read().taken == 7
    assert all(take.waited_s == 0 for take in ready.read().takes)


def test_a_ready_batch_is_handed_over_anew_each_time() -> None:
    ready = ReadyBatches([["labels"]], lambda: 0.0, list)
    assert [batch.pop() for batch in itertools.islice(ready, 3)] == ["labels"] * 3


def measured(world: World, config: TrainConfig, side: Any, seed: int = 0) -> TrialResult:
    """By a machine that has read all of the data."""
    backend = SimulatedBackend(dataclasses.replace(world, cold_times=1.0), VirtualClock(), seed)
    request = TrialRequest(config=config, seed=seed, time_limit_s=9.0 if side is None else 2.0, side=side)
    result = backend.run(request, deadline_s=1e9, on_event=lambda _event: None)
    assert result.side == side
    return result


def config_of(world: World, workers: int) -> TrainConfig:
    size = world.effective_batch_size // 4
    return TrainConfig(
        micro_batch_size=size,
        grad_accum_steps=4,
        amp_dtype="bf16",
        memory_format="channels_last",
        num_workers=workers,
        prefetch_factor=2 if workers else None,
    )


def true_demand(world: World, config: TrainConfig) -> float:
    process = TrainingProcess(world, config, luck=Luck(seed=7), warm=True, ready=True)
    for _ in range(100):
        process.optimizer_step()
    process.synchronise()
    return process.samples / process.now_s


QUIET = [world for world in worlds(CALM).values() if not world.is_noisy]


@pytest.mark.parametrize("world", QUIET, ids=lambda world: world.name)
def test_the_step_alone_takes_what_it_takes_in_a_whole_trial_and_in_truth(world: World) -> None:
    config = config_of(world, 4)
    whole, step = measured(world, config, None), measured(world, config, "step")
    assert step.rates is None
    assert whole.rates is not None
    assert step.side_rate is not None
    assert step.side_rate.per_s == pytest.approx(whole.rates.demand_per_s, rel=0.01)
    assert step.side_rate.per_s == pytest.approx(true_demand(world, config), rel=0.01)
    assert step.wall_s < whole.wall_s


@pytest.mark.parametrize("world", [world for world in QUIET if not world.slow_every], ids=lambda world: world.name)
@pytest.mark.parametrize("workers", [4, 16])
def test_the_loader_alone_delivers_what_it_does_in_a_whole_trial(world: World, workers: int) -> None:
    config = config_of(world, workers)
    whole, loader = measured(world, config, None), measured(world, config, "loader")
    assert not loader.blocks
    assert whole.rates is not None
    assert loader.side_rate is not None
    assert loader.side_rate.per_s == pytest.approx(whole.rates.supply_per_s, rel=0.05)


def test_batches_of_one_size_are_loaded_once() -> None:
    world = worlds(CALM)["loader-bound by waiting"]
    backend, config = SimulatedBackend(world, VirtualClock(), 0), config_of(world, 4)

    def start_up_s(size: int) -> float:
        request = TrialRequest(
            config=config.with_values({"micro_batch_size": size}), seed=0, time_limit_s=1.0, side="step"
        )
        return backend.run(request, deadline_s=1e9, on_event=lambda _event: None).start_up_s or 0.0

    fetch_s = 64 * world.sample_wait_s
    first, again, other = start_up_s(64), start_up_s(64), start_up_s(128)
    assert first - again == pytest.approx(fetch_s, rel=0.5)
    assert other - again == pytest.approx(2 * fetch_s, rel=0.5)


def test_the_resident_waits_while_a_loader_is_drained() -> None:
    world = worlds(CALM)["compute-bound"]
    backend, config = SimulatedBackend(world, VirtualClock(), 0), config_of(world, 4)

    def run(side: Any) -> TrialResult:
        request = TrialRequest(config=config, seed=0, time_limit_s=2.0, side=side, in_any_process=True)
        return backend.run(request, deadline_s=1e9, on_event=lambda _event: None)

    first, drained, step, last = run(None), run("loader"), run("step"), run(None)
    assert drained.process != first.process
    assert (drained.runs_before, step.runs_before, last.runs_before) == (0, 1, 2)
    assert first.process == step.process == last.process


def test_on_a_cpu_too() -> None:
    world = worlds(dataclasses.replace(CPU, noise=dataclasses.replace(CPU.noise, between=0.0)))["compute-bound"]
    config = config_of(world, 2)
    step = measured(world, config, "step")
    assert step.side_rate is not None
    assert step.side_rate.per_s == pytest.approx(true_demand(world, config), rel=0.02)
