"""What fp32 matrix products and convolutions may be computed in: `ieee`, or `tf32` with a 10-bit mantissa.

Left alone (None), PyTorch takes tf32 for cuDNN's convolutions and ieee for matrix products.
"""

from __future__ import annotations

from autotune.config import KnobValue, TrainConfig
from autotune.knobs.knob import NO_CHANGE, Expectation, Knob, KnobContext
from autotune.records import Facts

_FIRST_WITH_TF32 = (8, 0)


def _domain(_context: KnobContext) -> tuple[KnobValue, ...]:
    return (None, "tf32")


def _refusal(value: KnobValue, context: KnobContext) -> str | None:
    if value is None:
        return None
    if context.facts.device.kind != "cuda":
        return "CUDA only"
    capability = context.facts.device.compute_capability
    if value == "tf32" and (capability is None or capability < _FIRST_WITH_TF32):
        return "tf32 needs compute capability 8.0"
    return None


def _expected(config: TrainConfig, _facts: Facts) -> Expectation:
    """Tensor cores for the products that autocast leaves in fp32: all of them without it, next to none with it."""
    works = config.fp32_precision == "tf32" and config.amp_dtype == "none"
    return Expectation(time=-0.4) if works else NO_CHANGE


KNOB = Knob(name="fp32_precision", domain=_domain, refusal=_refusal, expected=_expected)
