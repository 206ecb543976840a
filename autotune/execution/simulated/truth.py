"""The throughput of a training run of hours in a world: the events of a plain loop, without measuring code and random
effects."""

from __future__ import annotations

import functools
import math

from autotune.config import TrainConfig
from autotune.execution.simulated.process import Luck, TrainingProcess
from autotune.execution.simulated.world import World

_FEWEST_BATCHES = 1500
"""How many micro-batches run: over so many, the noise within a process averages out to about 0.2 %."""


@functools.lru_cache(maxsize=50_000)
def truth(world: World, config: TrainConfig) -> float:
    """Samples per second over whole epochs after the first. Noise between processes, outliers, drift and other work are
    left out; noise within a process is averaged. 0 if the configuration does not fit into memory."""
    if world.memory_bytes(config) > world.hardware.memory_bytes:
        return 0.0
    epoch = world.epoch_batches(config)
    process = TrainingProcess(world, config, luck=Luck(seed=7), warm=True)
    # Only the device's last work reaches from one epoch into the next, so a warm start looks like an epoch's edge.
    micro_batches = epoch * math.ceil(_FEWEST_BATCHES / epoch)
    for number in range(1, micro_batches + 1):
        process.micro_batch(last=number % config.grad_accum_steps == 0)
    process.synchronise()
    return micro_batches * config.micro_batch_size / process.now_s
