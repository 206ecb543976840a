"""The virtual loader beside PyTorch's own, with samples that sleep: in order, bounded, and as fast."""

from __future__ import annotations

import dataclasses
import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from autotune.config import TrainConfig
from autotune.execution.simulated.catalogue import CPU, worlds
from autotune.execution.simulated.process import TrainingProcess
from autotune.execution.simulated.world import Noise, StepTime

SAMPLE_S, MICRO, BATCHES, WORKERS = 0.01, 4, 12, 3


class Sleeping(Dataset[int]):
    def __len__(self) -> int:
        return MICRO * BATCHES

    def __getitem__(self, index: int) -> int:
        time.sleep(SAMPLE_S)
        return index


def real(step_s: float) -> float:
    """Seconds of the second and third epoch."""
    loader = DataLoader(Sleeping(), batch_size=MICRO, num_workers=WORKERS, prefetch_factor=2, persistent_workers=True)
    began_s, epochs = 0.0, 3
    for epoch in range(epochs):
        if epoch == 1:
            began_s = time.perf_counter()
        for number, batch in enumerate(loader):
            assert torch.equal(batch, torch.arange(MICRO) + number * MICRO)
            time.sleep(step_s)
    return time.perf_counter() - began_s


def virtual(step_s: float) -> float:
    hardware = dataclasses.replace(CPU, cores=8, noise=Noise(), worker_start_s=0.0, epoch_restart_s=0.0)
    world = dataclasses.replace(
        worlds(CPU)["compute-bound"],
        hardware=hardware,
        step=StepTime(sample_s=step_s / MICRO),
        sample_wait_s=SAMPLE_S,
        sample_cpu_s=0.0,
        samples=MICRO * BATCHES,
    )
    config = TrainConfig(micro_batch_size=MICRO, num_workers=WORKERS, prefetch_factor=2, num_threads=1)
    process = TrainingProcess(world, config, warm=True)
    for _ in range(2 * BATCHES):
        process.optimizer_step()
    return process.now_s


@pytest.mark.slow
@pytest.mark.parametrize("step_s", [0.002, 0.013, 0.03], ids=["loader-bound", "close", "compute-bound"])
def test_epochs_last_as_long_as_with_a_real_loader(step_s: float) -> None:
    assert virtual(step_s) <= 1.02 * real(step_s)  # a machine can only be slower than sleeping
    assert real(step_s) == pytest.approx(virtual(step_s), rel=0.3)
