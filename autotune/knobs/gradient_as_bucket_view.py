"""Gradients that live in DDP's buffers: no copies around the exchange, and their memory once instead of twice."""

from __future__ import annotations

from autotune.config import KnobValue, TrainConfig
from autotune.knobs.knob import Knob, KnobContext, of_several_ranks, refused_to_one_rank


def _untuned(context: KnobContext) -> KnobValue:
    return False if context.ranks > 1 else None


def _matters(config: TrainConfig) -> bool:
    return config.data_parallel == "ddp"


KNOB = Knob(
    name="gradient_as_bucket_view",
    domain=of_several_ranks(False, True),
    refusal=refused_to_one_rank,
    untuned=_untuned,
    matters=_matters,
    doubt=0.05,
)
