"""The first configurations after the baseline: what an expert would try before any model of the space exists."""

from __future__ import annotations

from typing import Any

from autotune.config import TrainConfig
from autotune.search.space import Space

MOST_SEEDS = 6


def expert_seeds(space: Space) -> list[TrainConfig]:
    """At most six configurations, the most promising first, none twice, all in the space, allowed and not held back.

    All that should help at moderate values; the same at the baseline's own batch; without loader processes; without
    AMP, which loses on depth-wise convolutions; with the compiler on top; with as many loader processes as there are.
    """
    together: dict[str, Any] = {
        "micro_batch_size": _upper_middle(space, "micro_batch_size"),
        "amp_dtype": _first_of(space, "amp_dtype", "bf16", "fp16"),
        "memory_format": _first_of(space, "memory_format", "channels_last"),
        "pin_memory": _first_of(space, "pin_memory", True),
        "num_workers": _upper_middle(space, "num_workers"),
        "fp32_precision": _first_of(space, "fp32_precision", "tf32"),
        "fused_optimizer": _first_of(space, "fused_optimizer", True),
    }
    without_workers = {**together, "num_workers": _lowest(space, "num_workers")}
    at_own_batch = {knob: value for knob, value in together.items() if knob != "micro_batch_size"}
    ideas: list[dict[str, Any]] = [
        together,
        at_own_batch,
        {**without_workers, "micro_batch_size": _largest(space, "micro_batch_size")},
        {
            **together,
            "amp_dtype": _first_of(space, "amp_dtype", "none"),
            "micro_batch_size": _largest(space, "micro_batch_size"),
        },
        {**together, "compile": _first_of(space, "compile", "default")},
        {**together, "num_workers": _largest(space, "num_workers")},
    ]
    return _distinct(space, ideas)


def _distinct(space: Space, ideas: list[dict[str, Any]]) -> list[TrainConfig]:
    seen = {space.baseline}
    seeds: list[TrainConfig] = []
    for idea in ideas:
        changes = {knob: value for knob, value in idea.items() if value is not None}
        wish = space.complete(space.baseline.replace(**changes))
        config = space.config_at(space.indices_of(wish))
        if config not in seen and space.allows(config):
            seen.add(config)
            seeds.append(config)
    return seeds[:MOST_SEEDS]


def _searched(space: Space, knob: str) -> tuple[Any, ...]:
    searched = next((dimension.searched for dimension in space.dimensions if dimension.knob == knob), ())
    return tuple(value for value in searched if value not in space.held_back.get(knob, ()))


def _first_of(space: Space, knob: str, *wishes: Any) -> Any:
    return next((wish for wish in wishes if wish in _searched(space, knob)), None)


def _largest(space: Space, knob: str) -> Any:
    return max(_searched(space, knob), default=None)


def _lowest(space: Space, knob: str) -> Any:
    return min(_searched(space, knob), default=None)


def _upper_middle(space: Space, knob: str) -> Any:
    """Past the middle, short of the end: large enough to matter, small enough to fit."""
    values = sorted(_searched(space, knob))
    return values[len(values) // 2] if values else None
