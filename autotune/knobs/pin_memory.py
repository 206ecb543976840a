"""Batches in page-locked host memory, so that their copy to the device overlaps with computation."""

from __future__ import annotations

from autotune.config import KnobValue
from autotune.knobs.knob import Knob, KnobContext


def _domain(_context: KnobContext) -> tuple[KnobValue, ...]:
    return (False, True)


def _refusal(value: KnobValue, context: KnobContext) -> str | None:
    if not value:
        return None
    if context.on_cpu:
        return "no accelerator"
    return "PyTorch does not pin memory for MPS" if context.facts.device.kind == "mps" else None


KNOB = Knob(name="pin_memory", domain=_domain, refusal=_refusal, doubt=0.05)
