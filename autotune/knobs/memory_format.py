"""Layout of images in memory: channels_last suits tensor cores and oneDNN, mostly together with a 16-bit dtype."""

from __future__ import annotations

from autotune.config import KnobValue
from autotune.knobs.knob import Knob, KnobContext

_IMAGE_DIMENSIONS = 3


def _domain(_context: KnobContext) -> tuple[KnobValue, ...]:
    return ("contiguous", "channels_last")


def _refusal(value: KnobValue, context: KnobContext) -> str | None:
    shape = context.facts.workload.input_shape
    if value == "channels_last" and (shape is None or len(shape) != _IMAGE_DIMENSIONS):
        return "the inputs are not images (batches of four dimensions)"
    return None


KNOB = Knob(name="memory_format", domain=_domain, refusal=_refusal)
