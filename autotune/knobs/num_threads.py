"""Threads inside one operator on the CPU, which contend with loader processes for the same cores."""

from __future__ import annotations

from autotune.config import KnobValue
from autotune.knobs.knob import Knob, KnobContext


def _untuned(context: KnobContext) -> KnobValue:
    return context.facts.host.default_num_threads if context.on_cpu else None


def _domain(context: KnobContext) -> tuple[KnobValue, ...]:
    most = context.facts.host.default_num_threads
    return tuple(sorted({most, *(1 << n for n in range(most.bit_length()))})) if context.on_cpu else (None,)


def _refusal(value: KnobValue, context: KnobContext) -> str | None:
    return "CPU only" if value is not None and not context.on_cpu else None


KNOB = Knob(name="num_threads", domain=_domain, refusal=_refusal, untuned=_untuned)
