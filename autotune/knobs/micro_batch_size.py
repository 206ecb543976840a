"""Samples per forward and backward pass: the larger, the better the device is used, until memory ends."""

from __future__ import annotations

from autotune.config import KnobValue
from autotune.knobs.knob import Knob, KnobContext

_SMALLEST, _LARGEST = 8, 512
_FEWEST = 3


def _domain(context: KnobContext) -> tuple[KnobValue, ...]:
    """Powers of two; of a fixed effective batch size that few of them divide, its larger divisors instead."""
    powers = tuple(1 << n for n in range(_SMALLEST.bit_length() - 1, _LARGEST.bit_length()))
    wanted = context.spec.training.effective_batch_size
    size = wanted // context.ranks if isinstance(wanted, int) else wanted
    if not isinstance(size, int) or sum(size % power == 0 for power in powers) >= _FEWEST:
        return powers
    divisors = [divisor for divisor in range(1, min(size, _LARGEST) + 1) if size % divisor == 0]
    return tuple(divisors[-len(powers) :])


def _refusal(value: KnobValue, context: KnobContext) -> str | None:
    samples = context.facts.workload.dataset_samples
    if isinstance(value, int) and samples is not None and value * context.ranks > samples:
        return f"the data set has {samples} samples" + (f" for {context.ranks} ranks" if context.ranks > 1 else "")
    return None


KNOB = Knob(name="micro_batch_size", domain=_domain, refusal=_refusal)
