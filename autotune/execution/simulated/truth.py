"""What a training run of hours gets in a world: the events of a plain loop, without measuring code and without luck."""

from __future__ import annotations

import functools
import math

from autotune.config import TrainConfig
from autotune.execution.simulated.process import Luck, TrainingProcess
from autotune.execution.simulated.world import World

_FEWEST_BATCHES = 1500
"""Micro-batches that are run: over so many the noise within a process averages out to some 0.2 %."""


@functools.lru_cache(maxsize=50_000)
def truth(world: World, config: TrainConfig) -> float:
    """Samples per second over whole epochs after the first: noise between processes, outliers, drift and other work
    left out, noise within averaged. 0 for what does not fit into the memory."""
    if world.memory_bytes(config) > world.hardware.memory_bytes:
        return 0.0
    epoch = world.epoch_batches(config)
    process = TrainingProcess(world, config, luck=Luck(seed=7), warm=True)
    # Nothing of an epoch reaches into the next but the device's last work, so that a warm start is an epoch's edge.
    micro_batches = epoch * math.ceil(_FEWEST_BATCHES / epoch)
    for number in range(1, micro_batches + 1):
        process.micro_batch(last=number % config.grad_accum_steps == 0)
    process.synchronise()
    return micro_batches * config.micro_batch_size / process.now_s
