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

SAMPLE_S, MICRO, BATCHES, WORKERS, EPOCHS = 0.01, 4, 12, 3, 6


class Sleeping(Dataset[int]):
    def __len__(self) -> int:
        return MICRO * BATCHES

    def __getitem__(self, index: int) -> int:
        time.sleep(SAMPLE_S)
        return index


def real(step_s: float) -> float:
    """Seconds of the shortest epoch after the first: what halts the machine for a moment lengthens one or two."""
    loader = DataLoader(Sleeping(), batch_size=MICRO, num_workers=WORKERS, prefetch_factor=2, persistent_workers=True)
    epochs_s = []
    for _ in range(EPOCHS):
        began_s = time.perf_counter()
        for number, batch in enumerate(loader):
            assert torch.equal(batch, torch.arange(MICRO) + number * MICRO)
            time.sleep(step_s)
        epochs_s.append(time.perf_counter() - began_s)
    return min(epochs_s[1:])


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
    return process.now_s / 2


@pytest.mark.slow
@pytest.mark.parametrize("step_s", [0.002, 0.013, 0.03], ids=["loader-bound", "close", "compute-bound"])
def test_epochs_last_as_long_as_with_a_real_loader(step_s: float) -> None:
    expected_s, took_s = virtual(step_s), real(step_s)
    assert expected_s <= 1.02 * took_s, "a machine can only be slower than sleeping"
    assert took_s <= 1.3 * expected_s
