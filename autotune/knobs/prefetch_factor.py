"""Batches that each loader process works ahead: a longer queue rides out uneven decoding, for host memory."""

from __future__ import annotations

from autotune.config import KnobValue, TrainConfig
from autotune.knobs.knob import Knob, KnobContext

_PYTORCH_DEFAULT = 2


def _domain(_context: KnobContext) -> tuple[KnobValue, ...]:
    return (_PYTORCH_DEFAULT, 4, 8)


def _untuned(_context: KnobContext) -> KnobValue:
    return _PYTORCH_DEFAULT


def _matters(config: TrainConfig) -> bool:
    return config.num_workers > 0


KNOB = Knob(name="prefetch_factor", domain=_domain, untuned=_untuned, matters=_matters)
