"""The virtual loader beside PyTorch's own, with samples that sleep: in order, bounded, and as fast."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import NamedTuple

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from autotune.config import TrainConfig
from autotune.execution.simulated.catalogue import CPU, worlds
from autotune.execution.simulated.process import TrainingProcess
from autotune.execution.simulated.world import Noise, StepTime

SAMPLE_S, MICRO, BATCHES, WORKERS, EPOCHS = 0.01, 4, 12, 3, 6
TRIES = 6


class Sleeping(Dataset[tuple[int, float]]):
    """Each sample with the seconds that it really slept: on a busy machine they are more than it was told."""

    def __len__(self) -> int:
        return MICRO * BATCHES

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, sleep(SAMPLE_S)


def sleep(seconds: float) -> float:
    began_s = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - began_s


class Epoch(NamedTuple):
    seconds: float
    step_s: float
    """Mean, as it really was."""
    sample_s: float


def real(step_s: float) -> Epoch:
    """The shortest epoch after the first: what halts the machine for a moment lengthens one or two."""
    loader = DataLoader(Sleeping(), batch_size=MICRO, num_workers=WORKERS, prefetch_factor=2, persistent_workers=True)
    epochs = []
    for _ in range(EPOCHS):
        steps_s, samples_s = [], []
        began_s = time.perf_counter()
        for number, (batch, slept_s) in enumerate(loader):
            assert torch.equal(batch, torch.arange(MICRO) + number * MICRO)
            steps_s.append(sleep(step_s))
            samples_s += slept_s.tolist()
        took_s = time.perf_counter() - began_s
        epochs.append(Epoch(took_s, statistics.fmean(steps_s), statistics.fmean(samples_s)))
    return min(epochs[1:])


def virtual(step_s: float, sample_s: float = SAMPLE_S) -> float:
    """Seconds of an epoch."""
    hardware = dataclasses.replace(CPU, cores=8, noise=Noise(), worker_start_s=0.0, epoch_restart_s=0.0)
    world = dataclasses.replace(
        worlds(CPU)["compute-bound"],
        hardware=hardware,
        step=StepTime(sample_s=step_s / MICRO),
        sample_wait_s=sample_s,
        sample_cpu_s=0.0,
        samples=MICRO * BATCHES,
    )
    config = TrainConfig(micro_batch_size=MICRO, num_workers=WORKERS, prefetch_factor=2, num_threads=1)
    process = TrainingProcess(world, config, warm=True)
    for _ in range(2 * BATCHES):
        process.optimizer_step()
    return process.now_s / 2


@pytest.mark.slow
@pytest.mark.parametrize("step_s", [0.002, 0.013, 0.03], ids=["loader-bound", "close", "compute-bound"])
def test_epochs_last_as_long_as_with_a_real_loader(step_s: float) -> None:
    for _ in range(TRIES):  # other work may hold up all epochs of one
        epoch = real(step_s)
        assert virtual(step_s) <= 1.02 * epoch.seconds, "a machine can only be slower than sleeping"
        if epoch.seconds <= 1.3 * virtual(epoch.step_s, epoch.sample_s):
            return
    pytest.fail(f"of {TRIES} loaders, each was slower than the virtual one: {epoch}")
