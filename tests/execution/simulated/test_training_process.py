"""The events of a virtual training process against schedules worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest

from autotune.config import TrainConfig
from autotune.execution.simulated import Hardware, Noise, StepTime, World, truth
from autotune.execution.simulated.cores import Burst, Cores
from autotune.execution.simulated.loader import Killed
from autotune.execution.simulated.process import TrainingProcess

CPU = Hardware(
    name="cores",
    device="cpu",
    cores=8,
    memory_bytes=1 << 30,
    start_s=0.0,
    next_start_s=0.0,
    next_first_step_s=0.0,
    fork_s=0.0,
    first_step_s=0.0,
    worker_start_s=0.0,
    epoch_restart_s=0.0,
    noise=Noise(),
)
GPU = dataclasses.replace(CPU, device="cuda")


def world(hardware: Hardware = CPU, *, step_s: float = 1.0, samples: int = 1000, **changes: object) -> World:
    """A micro-batch is one sample."""
    values = {"sample_wait_s": 0.0, "sample_cpu_s": 0.0, **changes}
    return World(
        name="by hand",
        hardware=hardware,
        step=StepTime(sample_s=step_s, **values.pop("step", {})),  # type: ignore[arg-type]
        samples=samples,
        budget="1m",
        search=(),
        baseline=(),
        effective_batch_size=1,
        **values,  # type: ignore[arg-type]
    )


def process(of: World, *, workers: int = 0, prefetch: int = 2, **knobs: object) -> TrainingProcess:
    return TrainingProcess(of, config(workers, prefetch, **knobs))


def config(workers: int, prefetch: int = 2, **knobs: object) -> TrainConfig:
    values = {"micro_batch_size": 1, "num_threads": 1, **knobs}
    return TrainConfig(num_workers=workers, prefetch_factor=prefetch if workers else None, **values)  # type: ignore[arg-type]


def takes(one: TrainingProcess, steps: int) -> list[float]:
    """When each batch was taken."""
    for _ in range(steps):
        one.optimizer_step()
    return [round(take.at_s, 9) for take in one.log.takes]


def test_without_workers_loading_and_training_take_turns() -> None:
    one = process(world(sample_wait_s=2.0, sample_cpu_s=1.0))
    assert takes(one, 3) == [3.0, 7.0, 11.0]
    assert one.now_s == 12.0


def test_two_waiting_workers_deliver_in_order() -> None:
    # Worker 0 loads batches 0, 2, 4 until 4, 8, 12; worker 1 batches 1, 3 until 4, 8.
    assert takes(process(world(sample_wait_s=4.0), workers=2), 5) == [4.0, 5.0, 8.0, 9.0, 12.0]


def test_a_batch_that_is_late_holds_back_those_behind_it() -> None:
    # The second batch takes 10 s, in worker 1; worker 0 has loaded the third long before.
    slow = world(sample_wait_s=1.0, slow_every=2, slow_times=10.0)
    assert takes(process(slow, workers=2), 4) == [1.0, 10.0, 11.0, 20.0]


def test_the_queue_is_bounded() -> None:
    one = process(world(sample_wait_s=0.1, step_s=10.0), workers=2, prefetch=2)
    one.optimizer_step()
    one.cores.run_until(10.1)
    assert one.log.level == 4  # of five dispatched, one is taken
    one.cores.run_until(1000.0)
    assert one.log.level == 4


def test_an_epoch_begins_with_an_empty_queue() -> None:
    # Three batches an epoch: at its end nothing is dispatched, and both workers begin at the same moment.
    short = world(dataclasses.replace(CPU, epoch_restart_s=0.5), sample_wait_s=4.0, samples=3)
    assert takes(process(short, workers=2), 6) == [4.0, 5.0, 8.0, 13.5, 14.5, 17.5]


def test_workers_that_compute_share_the_cores_with_each_other_and_with_training() -> None:
    two = dataclasses.replace(CPU, cores=2)
    busy = process(world(two, sample_cpu_s=2.0), workers=4, prefetch=1)
    assert takes(busy, 1) == [4.0]  # four processes on two cores: each at half its speed
    # Then five compute: training, and the four that have gone on, or got their next batch.
    assert busy.cores.own_s == pytest.approx(2.0 * busy.now_s)


def test_a_device_works_while_its_host_waits_for_data() -> None:
    lagging = process(world(GPU, step_s=2.0, sample_wait_s=2.0), pin_memory=True)
    for _ in range(3):
        lagging.optimizer_step()
    assert lagging.now_s == 6.0  # the host has waited for data only
    lagging.synchronise()
    assert lagging.now_s == 8.0


def test_a_host_runs_ahead_of_its_device_by_a_few_micro_batches() -> None:
    def host_s(**knobs: object) -> float:
        one = process(world(GPU, step_s=1.0), **knobs)
        for _ in range(6):
            one.optimizer_step()
        return one.now_s

    assert host_s(pin_memory=True) == 3.0
    assert host_s(pin_memory=False) == 5.0


def test_the_first_step_lets_the_queue_fill() -> None:
    slow = process(world(dataclasses.replace(CPU, first_step_s=7.0), sample_wait_s=1.0), workers=2, prefetch=2)
    slow.optimizer_step()
    assert slow.now_s == 9.0
    assert slow.log.level == 4


def test_a_burst_of_other_work_takes_its_share() -> None:
    cores = Cores(2, 0.0, iter([Burst(1.0, 3.0, 2.0, True)]))
    ended: list[float] = []
    cores.compute(3.0, 2, lambda: ended.append(cores.now_s))
    cores.run_until(10.0)
    assert ended == [4.0]  # 1 s alone, 1 s of progress in 2 s, 1 s alone
    assert cores.outside_s == pytest.approx(2.0)
    assert cores.own_s == pytest.approx(6.0)


def test_a_process_is_killed_at_its_deadline() -> None:
    one = TrainingProcess(world(), config(0), deadline_s=5.0)
    with pytest.raises(Killed):
        for _ in range(100):
            one.optimizer_step()
    assert one.now_s <= 7.0


@pytest.mark.parametrize(
    ("wait_s", "step_s", "workers", "expected"),
    [
        (4.0, 1.0, 0, 1 / 5),
        (4.0, 1.0, 1, 1 / 4),
        (4.0, 1.0, 2, 1 / 2),
        (4.0, 1.0, 8, 1.0),
        (0.0, 1.0, 2, 1.0),
    ],
)
def test_the_truth_of_long_epochs_is_the_slower_side(
    wait_s: float, step_s: float, workers: int, expected: float
) -> None:
    found = truth(world(sample_wait_s=wait_s, step_s=step_s, samples=6_000), config(workers))
    assert found == pytest.approx(expected, rel=5e-3)


def test_the_truth_counts_the_edges_of_epochs() -> None:
    """Two workers, three batches of 4 s each: 4, 5 and 8 s, the step of the last until 9 s; then another epoch."""
    assert truth(world(sample_wait_s=4.0, samples=3), config(2)) == pytest.approx(3 / 9)


def test_what_does_not_fit_has_no_throughput() -> None:
    assert truth(world(sample_memory_bytes=2 << 30), config(0)) == 0.0
