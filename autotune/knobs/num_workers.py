"""Loader processes that decode and collate batches beside the training loop."""

from __future__ import annotations

from autotune.config import KnobValue
from autotune.knobs.knob import Knob, KnobContext

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


KNOB = Knob(name="num_workers", domain=_domain, refusal=_refusal)
