"""What the performance model has learned from the trials, for people to read and check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from autotune.config import KnobValue, TrainConfig
from autotune.search.performance.loading import Loading
from autotune.search.performance.model import PerformanceModel, log_interval
from autotune.search.space import Space

_HARDLY = 0.05
"""A difference of ln(throughput): nobody would go to a larger batch for it."""
_MIB = 1 << 20


def learned(model: PerformanceModel, space: Space, best: TrainConfig) -> dict[str, Any]:
    """As `best.yaml` states it: `effects` of single changes to `best`, the fastest trial of the search, as ratios of
    the throughput with their 95 % intervals; `facts`, a sentence each."""
    return {
        "effects": list(_effects(model, space, best)),
        "facts": [*_batch(model, space, best), *_loading(model), *_memory(model)],
    }


def _effects(model: PerformanceModel, space: Space, best: TrainConfig) -> Iterator[dict[str, Any]]:
    for dimension in space.dimensions:
        knob = dimension.knob
        if knob in ("micro_batch_size", "prefetch_factor"):
            continue
        for value in dimension.searched:
            other = space.complete(best.with_values({knob: value}))
            if value != best.value(knob) and other.value(knob) == value:
                ratio, low, high = log_interval(*model.compare(other, best))
                yield {
                    "set": {knob: value},
                    "instead_of": {knob: best.value(knob)},
                    "ratio": round(ratio, 4),
                    "ci95": [round(low, 4), round(high, 4)],
                }


def _batch(model: PerformanceModel, space: Space, best: TrainConfig) -> Iterator[str]:
    """Where a larger micro-batch stops paying."""
    sizes = next((each.searched for each in space.dimensions if each.knob == "micro_batch_size"), ())
    configs = [space.complete(best.with_values({"micro_batch_size": size})) for size in _ascending(sizes)]
    if not configs:
        return
    mean = model.predict(model.encoding.encode(configs)).mean
    enough = configs[int(np.argmax(mean >= mean.max() - _HARDLY))].micro_batch_size
    yield f"micro_batch_size {enough} reaches at least 95 % of the throughput of any other size"


def _ascending(sizes: Sequence[KnobValue]) -> list[int]:
    return sorted(size for size in sizes if isinstance(size, int))


def _loading(model: PerformanceModel) -> Iterator[str]:
    loading = model.loading
    if loading.alone_doubt < 1:
        yield f"one process loads {1 / loading.alone_s:,.0f} samples/s" + _waiting(loading)


def _waiting(loading: Loading) -> str:
    if not loading.counted:
        return ""
    share = f"it computes {100 * loading.computing:.0f} % of that time"
    return f"; {share} and waits for the rest, so more processes than cores help" if loading.waits else f"; {share}"


def _memory(model: PerformanceModel) -> Iterator[str]:
    wall = model.memory.wall_bytes
    if wall is not None:
        low, high = wall
        yield f"{low / _MIB:,.0f} MiB fit into memory, about {high / _MIB:,.0f} MiB do not"
