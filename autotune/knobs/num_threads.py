"""Threads inside one operator on the CPU, which contend with loader processes for the same cores."""

from __future__ import annotations

import math

from autotune.config import KnobValue, TrainConfig
from autotune.knobs.knob import NO_CHANGE, Expectation, Knob, KnobContext
from autotune.records import Facts


def _untuned(context: KnobContext) -> KnobValue:
    return context.facts.host.default_num_threads if context.on_cpu else None


def _domain(context: KnobContext) -> tuple[KnobValue, ...]:
    host = context.facts.host
    most = max(host.default_num_threads, min(host.usable_cores, host.physical_cores))
    counts = {host.default_num_threads, most, *(1 << n for n in range(most.bit_length()))}
    return tuple(sorted(counts)) if context.on_cpu else (None,)


def _refusal(value: KnobValue, context: KnobContext) -> str | None:
    if value is not None and not context.on_cpu:
        return "CPU only"
    own = context.facts.host.default_num_threads
    if isinstance(value, int) and value > own and not context.listed("num_threads"):
        threads = "1 thread" if own == 1 else f"{own} threads"
        return f"PyTorch has {threads} here, set most often by OMP_NUM_THREADS; list it under search to try more"
    return None


def _expected(config: TrainConfig, facts: Facts) -> Expectation:
    """Most of a perfect split of the work."""
    if config.num_threads is None:
        return NO_CHANGE
    return Expectation(time=-0.7 * math.log(config.num_threads / facts.host.default_num_threads))


KNOB = Knob(name="num_threads", domain=_domain, refusal=_refusal, untuned=_untuned, expected=_expected, doubt=0.3)
