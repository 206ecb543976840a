"""DDP's promise that every step uses the same parameters, so that it need not look for those that were left out."""

from __future__ import annotations

from autotune.config import KnobValue, TrainConfig
from autotune.knobs.knob import Knob, KnobContext, of_several_ranks, refused_to_one_rank


def _untuned(context: KnobContext) -> KnobValue:
    return False if context.ranks > 1 else None


def _matters(config: TrainConfig) -> bool:
    """PyTorch fails on an internal assertion where the first backward pass is one that exchanges nothing (2.15)."""
    return config.data_parallel == "ddp" and config.grad_accum_steps == 1


KNOB = Knob(
    name="static_graph",
    domain=of_several_ranks(False, True),
    refusal=refused_to_one_rank,
    untuned=_untuned,
    matters=_matters,
    doubt=0.05,
)
