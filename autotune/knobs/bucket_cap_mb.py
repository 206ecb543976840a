"""How much of the gradient DDP exchanges at a time: small buckets start early, large ones use the network better."""

from __future__ import annotations

from autotune.config import KnobValue, TrainConfig
from autotune.knobs.knob import Knob, KnobContext, of_several_ranks, refused_to_one_rank

_PYTORCH_DEFAULT = 25


def _untuned(context: KnobContext) -> KnobValue:
    return _PYTORCH_DEFAULT if context.ranks > 1 else None


def _matters(config: TrainConfig) -> bool:
    return config.data_parallel == "ddp"


KNOB = Knob(
    name="bucket_cap_mb",
    domain=of_several_ranks(5, _PYTORCH_DEFAULT, 100),
    refusal=refused_to_one_rank,
    untuned=_untuned,
    matters=_matters,
    doubt=0.05,
)
