"""Automatic mixed precision: forward and loss in a 16-bit dtype, weights and their gradients in fp32."""

from __future__ import annotations

from autotune.config import KnobValue, TrainConfig
from autotune.knobs.knob import NO_CHANGE, Expectation, Knob, KnobContext
from autotune.records import Facts


def _domain(_context: KnobContext) -> tuple[KnobValue, ...]:
    return ("none", "bf16", "fp16")


def _refusal(value: KnobValue, context: KnobContext) -> str | None:
    if value == "none" or value in context.facts.device.amp_dtypes or context.listed("amp_dtype"):
        return None
    return f"{context.facts.device.name} has no fast {value}; list it under search.amp_dtype to try it anyway"


def _expected(config: TrainConfig, facts: Facts) -> Expectation:
    """1.8× on tensor cores, a little on CPUs with bf16 instructions, a multiple of the time where it is emulated."""
    if config.amp_dtype == "none":
        return NO_CHANGE
    if config.amp_dtype not in facts.device.amp_dtypes:
        return Expectation(time=1.5, memory=-0.35)
    return Expectation(time=-0.2 if facts.device.kind == "cpu" else -0.6, memory=-0.35)


KNOB = Knob(name="amp_dtype", domain=_domain, refusal=_refusal, expected=_expected, doubt=0.4, memory_doubt=0.2)
