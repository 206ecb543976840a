"""Activations computed again in the backward pass instead of kept: memory for time, so that a larger batch fits."""

from __future__ import annotations

from autotune.config import KnobValue, TrainConfig
from autotune.knobs.knob import NO_CHANGE, Expectation, Knob, KnobContext
from autotune.records import Facts


def _domain(_context: KnobContext) -> tuple[KnobValue, ...]:
    return (False, True)


def _refusal(value: KnobValue, context: KnobContext) -> str | None:
    if not value:
        return None
    if context.facts.workload.activation_checkpointing_refusal:
        return context.facts.workload.activation_checkpointing_refusal
    if context.on_cpu and not context.listed("activation_checkpointing"):
        return "it saves memory and costs time, and a CPU's memory is rarely the limit; list it under search to try it"
    return None


def _expected(config: TrainConfig, _facts: Facts) -> Expectation:
    """One more forward pass: a third of the time, for most of the activations (Chen et al., "Training Deep Nets with
    Sublinear Memory Cost", 2016, arXiv 1604.06174)."""
    return Expectation(time=0.28, memory=-1.0) if config.activation_checkpointing else NO_CHANGE


KNOB = Knob(
    name="activation_checkpointing", domain=_domain, refusal=_refusal, expected=_expected, doubt=0.15, memory_doubt=0.4
)
