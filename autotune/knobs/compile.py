"""torch.compile: faster steps for a compilation of 10 to 200 seconds before the first."""

from __future__ import annotations

from autotune.config import KnobValue, TrainConfig
from autotune.knobs.knob import NO_CHANGE, Expectation, Knob, KnobContext
from autotune.records import Facts
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


def _expected(config: TrainConfig, _facts: Facts) -> Expectation:
    """Fused element-wise operators; CUDA graphs and tuned kernels a little beyond."""
    if config.compile == "none":
        return NO_CHANGE
    return Expectation(time=-0.15 if config.compile == "default" else -0.2, memory=-0.1)


KNOB = Knob(name="compile", domain=_domain, refusal=_refusal, expected=_expected, memory_doubt=0.15)
