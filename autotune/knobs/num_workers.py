"""Loader processes that decode and collate batches beside the training loop."""

from __future__ import annotations

import math

from autotune.config import KnobValue
from autotune.knobs.knob import Knob, KnobContext
from autotune.records import Facts

_MOST_BY_CORE, _MOST_ON_FEW_CORES = 4, 32
"""Processes for each usable core that are worth trying where loading waits: it then computes a quarter of its time; on
few cores as many as wait for a slow network."""
_MOST = 128
"""More than any loader in use is given; every one is forked, and the queue grows with each."""
_MEMORY_BYTES = 256 * 2**20
"""Memory that a loader process needs for itself."""
_USUAL_BATCH, _USUAL_PREFETCH = 32, 2
_SMALLEST_SHM_BYTES = 64 * 2**20
"""Docker's default for /dev/shm, through which workers hand over their batches: too small for batches of images."""


def _domain(context: KnobContext) -> tuple[KnobValue, ...]:
    """Up to the usable cores, in steps that a person would take, then twice as many, four times, …"""
    cores = context.facts.host.usable_cores
    powers = {1 << n for n in range(cores.bit_length())}
    between = {3 << n for n in range(1, cores.bit_length())}  # 6, 12, 24: a loader is seldom 2 times too slow
    return (0, *sorted(value for value in powers | between | {cores} if value <= cores), *_held_back(context))


def _held_back(context: KnobContext) -> tuple[KnobValue, ...]:
    """More processes than cores, as far as their memory and the queue of small batches leave half of what there is."""
    if context.spec.search.values("num_workers") is not None:
        return ()
    host = context.facts.host
    wanted = max(_MOST_BY_CORE * host.usable_cores, _MOST_ON_FEW_CORES)
    most = min(wanted, _MOST, host.memory_bytes // 2 // _MEMORY_BYTES, _fitting_into_shm(context.facts))
    more = (host.usable_cores << doublings for doublings in range(1, _MOST.bit_length()))
    return tuple(value for value in more if value <= most)


def _fitting_into_shm(facts: Facts) -> int:
    """Processes whose queued batches of a usual size fill half of /dev/shm; samples of unknown size take nothing."""
    shape, shm_bytes = facts.workload.input_shape, facts.host.shm_bytes
    if shape is None or shm_bytes is None:
        return _MOST
    return shm_bytes // 2 // (4 * math.prod(shape) * _USUAL_BATCH * _USUAL_PREFETCH)


def _refusal(value: KnobValue, context: KnobContext) -> str | None:
    shm_bytes = context.facts.host.shm_bytes
    if value and shm_bytes is not None and shm_bytes <= _SMALLEST_SHM_BYTES and not context.listed("num_workers"):
        return f"/dev/shm holds only {shm_bytes >> 20} MiB; enlarge it (docker: --shm-size) or list num_workers"
    return None


KNOB = Knob(name="num_workers", domain=_domain, held_back=_held_back, refusal=_refusal, doubt=0.2)
