"""Loader processes that decode and collate batches beside the training loop."""

from __future__ import annotations

import math

from autotune.config import KnobValue, TrainConfig
from autotune.knobs.knob import NO_CHANGE, Expectation, Knob, KnobContext
from autotune.records import Facts

_MOST = 16
_SMALLEST_SHM_BYTES = 64 * 2**20
"""Docker's default for /dev/shm, through which workers hand over their batches: too small for batches of images."""


def _domain(context: KnobContext) -> tuple[KnobValue, ...]:
    most = min(context.facts.host.usable_cores, _MOST)
    return (0, *(1 << n for n in range(most.bit_length()) if 1 << n <= most))


def _refusal(value: KnobValue, context: KnobContext) -> str | None:
    shm_bytes = context.facts.host.shm_bytes
    if value and shm_bytes is not None and shm_bytes <= _SMALLEST_SHM_BYTES and not context.listed("num_workers"):
        return f"/dev/shm holds only {shm_bytes >> 20} MiB; enlarge it (docker: --shm-size) or list num_workers"
    return None


def _expected(config: TrainConfig, facts: Facts) -> Expectation:
    """On a CPU, threads that have to share their cores with loader processes run at about half their speed, and all
    others wait for them at the end of every operator. What loading itself takes is a part of its own in the performance
    model."""
    threads = config.num_threads or facts.host.default_num_threads
    sharing = threads + config.num_workers > facts.host.usable_cores
    if not config.num_workers or facts.device.kind != "cpu" or threads == 1 or not sharing:
        return NO_CHANGE
    return Expectation(time=math.log(2))


KNOB = Knob(name="num_workers", domain=_domain, refusal=_refusal, expected=_expected, doubt=0.2)
