"""The optimizer's update as one kernel over all parameters."""

from __future__ import annotations

from autotune.config import KnobValue, TrainConfig
from autotune.knobs.knob import NO_CHANGE, Expectation, Knob, KnobContext
from autotune.records import Facts


def _domain(_context: KnobContext) -> tuple[KnobValue, ...]:
    return (False, True)


def _refusal(value: KnobValue, context: KnobContext) -> str | None:
    return context.facts.workload.fused_optimizer_refusal if value else None


def _expected(config: TrainConfig, _facts: Facts) -> Expectation:
    return Expectation(optimizer=-0.4) if config.fused_optimizer else NO_CHANGE


KNOB = Knob(name="fused_optimizer", domain=_domain, refusal=_refusal, expected=_expected, doubt=0.05)
