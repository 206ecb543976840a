"""torch.compile: faster steps for a compilation of 10 to 200 seconds before the first."""

from __future__ import annotations

from autotune.config import KnobValue
from autotune.knobs.knob import Knob, KnobContext
from autotune.spec.durations import format_duration

_SMALLEST_BUDGET_S = 300.0


def _domain(context: KnobContext) -> tuple[KnobValue, ...]:
    return ("none", "default") if context.on_cpu else ("none", "default", "reduce-overhead", "max-autotune")


def _refusal(value: KnobValue, context: KnobContext) -> str | None:
    if value == "none":
        return None
    if value == "reduce-overhead" and context.on_cpu:
        return "it adds CUDA graphs only"
    if context.facts.device.compile_refusal:
        return context.facts.device.compile_refusal
    if context.spec.budget < _SMALLEST_BUDGET_S and not context.listed("compile"):
        budget = format_duration(context.spec.budget)
        return (
            f"a budget of {budget} leaves no room to compile (10 s to 200 s each); list it under search.compile to try"
        )
    return None


KNOB = Knob(name="compile", domain=_domain, refusal=_refusal)
