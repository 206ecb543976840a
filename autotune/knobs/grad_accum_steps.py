"""Micro-batches per optimizer step: no faster than a true large batch, but a large batch in little memory."""

from __future__ import annotations

from autotune.config import KnobValue
from autotune.knobs.knob import Knob, KnobContext


def _domain(_context: KnobContext) -> tuple[KnobValue, ...]:
    return (1, 2, 4, 8, 16)


KNOB = Knob(name="grad_accum_steps", domain=_domain)
