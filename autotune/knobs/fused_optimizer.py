"""The optimizer's update as one kernel over all parameters."""

from __future__ import annotations

from autotune.config import KnobValue
from autotune.knobs.knob import Knob, KnobContext


def _domain(_context: KnobContext) -> tuple[KnobValue, ...]:
    return (False, True)


def _refusal(value: KnobValue, context: KnobContext) -> str | None:
    return context.facts.workload.fused_optimizer_refusal if value else None


KNOB = Knob(name="fused_optimizer", domain=_domain, refusal=_refusal)
