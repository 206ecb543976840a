"""Threads inside one operator on the CPU, which contend with loader processes for the same cores."""

from __future__ import annotations

import math

from autotune.config import KnobValue, TrainConfig
from autotune.knobs.knob import NO_CHANGE, Expectation, Knob, KnobContext
from autotune.records import Facts


def _untuned(context: KnobContext) -> KnobValue:
    return context.facts.host.default_num_threads if context.on_cpu else None


def _domain(context: KnobContext) -> tuple[KnobValue, ...]:
    most = context.facts.host.default_num_threads
    return tuple(sorted({most, *(1 << n for n in range(most.bit_length()))})) if context.on_cpu else (None,)


def _refusal(value: KnobValue, context: KnobContext) -> str | None:
    return "CPU only" if value is not None and not context.on_cpu else None


def _expected(config: TrainConfig, facts: Facts) -> Expectation:
    """Most of a perfect split of the work."""
    if config.num_threads is None:
        return NO_CHANGE
    return Expectation(time=-0.7 * math.log(config.num_threads / facts.host.default_num_threads))


KNOB = Knob(name="num_threads", domain=_domain, refusal=_refusal, untuned=_untuned, expected=_expected, doubt=0.3)
