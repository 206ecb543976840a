"""Layout of images in memory: channels_last suits tensor cores and oneDNN, mostly together with a 16-bit dtype."""

from __future__ import annotations

from autotune.config import KnobValue, TrainConfig
from autotune.knobs.knob import NO_CHANGE, Expectation, Knob, KnobContext
from autotune.records import Facts

_IMAGE_DIMENSIONS = 3


def _domain(_context: KnobContext) -> tuple[KnobValue, ...]:
    return ("contiguous", "channels_last")


def _refusal(value: KnobValue, context: KnobContext) -> str | None:
    shape = context.facts.workload.input_shape
    if value == "channels_last" and (shape is None or len(shape) != _IMAGE_DIMENSIONS):
        return "the inputs are not images (batches of four dimensions)"
    return None


def _expected(config: TrainConfig, facts: Facts) -> Expectation:
    """Saves the transpositions around tensor cores and oneDNN; in fp32 on some GPUs it is slower instead."""
    if config.memory_format == "contiguous":
        return NO_CHANGE
    if config.amp_dtype != "none":
        return Expectation(time=-0.2)
    return Expectation(time=-0.1 if facts.device.kind == "cpu" else 0.0)


KNOB = Knob(name="memory_format", domain=_domain, refusal=_refusal, expected=_expected, doubt=0.3, memory_doubt=0.1)
