"""How several processes train one model: each with a copy of it, or each with a share of its parameters."""

from __future__ import annotations

from autotune.config import KnobValue, TrainConfig
from autotune.knobs.knob import NO_CHANGE, Expectation, Knob, KnobContext, of_several_ranks, refused_to_one_rank
from autotune.records import Facts


def _untuned(context: KnobContext) -> KnobValue:
    return "ddp" if context.ranks > 1 else None


def _expected(config: TrainConfig, _facts: Facts) -> Expectation:
    """Sharded parameters are gathered anew for every pass: more to exchange, for less memory."""
    return Expectation(time=0.1) if config.data_parallel == "fsdp" else NO_CHANGE


KNOB = Knob(
    name="data_parallel",
    domain=of_several_ranks("ddp", "fsdp"),
    refusal=refused_to_one_rank,
    untuned=_untuned,
    expected=_expected,
    memory_doubt=0.1,
)
