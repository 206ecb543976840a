"""Automatic mixed precision: forward and loss in a 16-bit dtype, weights and their gradients in fp32."""

from __future__ import annotations

from autotune.config import KnobValue
from autotune.knobs.knob import Knob, KnobContext


def _domain(_context: KnobContext) -> tuple[KnobValue, ...]:
    return ("none", "bf16", "fp16")


def _refusal(value: KnobValue, context: KnobContext) -> str | None:
    if value == "none" or value in context.facts.device.amp_dtypes or context.listed("amp_dtype"):
        return None
    return f"{context.facts.device.name} has no fast {value}; list it under search.amp_dtype to try it all the same"


KNOB = Knob(name="amp_dtype", domain=_domain, refusal=_refusal)
