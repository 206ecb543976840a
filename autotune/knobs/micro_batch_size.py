"""Samples per forward and backward pass: the larger, the better the device is used, until memory ends."""

from __future__ import annotations

from autotune.config import KnobValue
from autotune.knobs.knob import Knob, KnobContext

_SMALLEST, _LARGEST = 8, 512


def _domain(_context: KnobContext) -> tuple[KnobValue, ...]:
    return tuple(1 << n for n in range(_SMALLEST.bit_length() - 1, _LARGEST.bit_length()))


def _refusal(value: KnobValue, context: KnobContext) -> str | None:
    samples = context.facts.workload.dataset_samples
    if isinstance(value, int) and samples is not None and value > samples:
        return f"the data set has {samples} samples"
    return None


KNOB = Knob(name="micro_batch_size", domain=_domain, refusal=_refusal)
