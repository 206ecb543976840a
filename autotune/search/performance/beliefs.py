"""What the performance model has come to believe, in words: a person can check it, and learn from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from autotune.config import KnobValue, TrainConfig
from autotune.search.performance.loading import Loading
from autotune.search.performance.model import PerformanceModel
from autotune.search.space import Space

_SURE = 1.96
_HARDLY = 0.05
"""A difference of ln(throughput): nobody would go to a larger batch for it."""
_MIB = 1 << 20


def beliefs(model: PerformanceModel, space: Space, best: TrainConfig) -> list[str]:
    """One sentence each, about changes to `best`, the best configuration so far."""
    return [*_effects(model, space, best), *_batch(model, space, best), *_loading(model), *_memory(model)]


def _effects(model: PerformanceModel, space: Space, best: TrainConfig) -> Iterator[str]:
    """What each other value of a knob would make of the throughput."""
    for dimension in space.dimensions:
        if dimension.knob in ("micro_batch_size", "prefetch_factor"):
            continue
        own = best.value(dimension.knob)
        others = {value: space.complete(best.with_values({dimension.knob: value})) for value in dimension.searched}
        said = [
            _effect(model, best, other, value)
            for value, other in others.items()
            if value != own and other.value(dimension.knob) == value
        ]
        if said:
            yield f"{dimension.knob} {_shown(own)}: with {', '.join(said)}"


def _effect(model: PerformanceModel, best: TrainConfig, other: TrainConfig, value: KnobValue) -> str:
    ratio, doubt = model.compare(other, best)
    low, high = math.exp(ratio - _SURE * doubt), math.exp(ratio + _SURE * doubt)
    return f"{_shown(value)} {math.exp(ratio):.2f}× ({low:.2f} to {high:.2f})"


def _batch(model: PerformanceModel, space: Space, best: TrainConfig) -> Iterator[str]:
    """Where a larger micro-batch stops paying."""
    sizes = next((each.searched for each in space.dimensions if each.knob == "micro_batch_size"), ())
    configs = [space.complete(best.with_values({"micro_batch_size": size})) for size in _ascending(sizes)]
    if not configs:
        return
    mean = model.predict(model.encoding.encode(configs)).mean
    enough = configs[int(np.argmax(mean >= mean.max() - _HARDLY))].micro_batch_size
    yield f"micro_batch_size {enough} is within 5 % of what any size in the space would reach"


def _ascending(sizes: Sequence[KnobValue]) -> list[int]:
    return sorted(size for size in sizes if isinstance(size, int))


def _loading(model: PerformanceModel) -> Iterator[str]:
    loading = model.loading
    if loading.alone_doubt < 1:
        yield f"one process loads {1 / loading.alone_s:,.0f} samples a second" + _waiting(loading)


def _waiting(loading: Loading) -> str:
    if not loading.counted:
        return ""
    share = f"it computes {100 * loading.computing:.0f} % of that time"
    return f"; {share} and waits otherwise, so that more processes than cores help" if loading.waits else f"; {share}"


def _memory(model: PerformanceModel) -> Iterator[str]:
    wall = model.memory.wall_bytes
    if wall is not None:
        low, high = wall
        fitted, failed = f"{low / _MIB:,.0f} MiB, which fitted", f"about {high / _MIB:,.0f} MiB, which did not"
        yield f"memory ends between {fitted}, and {failed}"


def _shown(value: KnobValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
