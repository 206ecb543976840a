"""A baseline that does not fit into memory: a smaller micro-batch, and as much more accumulation, in its place.

What the study is compared with then trains the same, at the same effective batch size. It follows from the records of
the baseline's trials alone, so that a study that is resumed comes to the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from autotune.config import TrainConfig
from autotune.errors import NoStableConfiguration
from autotune.records import Facts, Purpose, TrialRecord, TrialStatus
from autotune.search.build_space import build_space
from autotune.search.space import Space
from autotune.spec import Spec


class BaselineTooLarge(NoStableConfiguration):
    """The baseline ran out of memory, and a smaller micro-batch may not."""


def smaller(config: TrainConfig) -> TrainConfig | None:
    """`config` with the largest divisor of its micro-batch that is at most half of it, at the same effective batch
    size; None where it is one sample already."""
    micro = config.micro_batch_size
    divisor = next((size for size in range(micro // 2, 0, -1) if micro % size == 0), None)
    if divisor is None:
        return None
    return config.replace(micro_batch_size=divisor, grad_accum_steps=config.grad_accum_steps * (micro // divisor))


def out_of_memory(records: Sequence[TrialRecord]) -> frozenset[TrainConfig]:
    """The baselines that did not fit."""
    tried = (record.result for record in records if record.purpose is Purpose.BASELINE)
    return frozenset(result.config for result in tried if result.status is TrialStatus.OOM)


def fitting(spec: Spec, facts: Facts, too_large: Collection[TrainConfig]) -> tuple[Spec, Space]:
    """`spec` with the largest such baseline that is not known to be `too_large`, and its space."""
    space = build_space(spec, facts)
    while space.baseline in too_large and (less := smaller(space.baseline)) is not None:
        batch = {"micro_batch_size": less.micro_batch_size, "grad_accum_steps": less.grad_accum_steps}
        spec = spec.model_copy(update={"baseline": spec.baseline.model_copy(update=batch)})
        space = build_space(spec, facts)
    return spec, dataclasses.replace(space, too_large=frozenset(too_large))


def said(baseline: TrainConfig, too_large: Collection[TrainConfig]) -> str | None:
    """That it was done, in a sentence; None where it was not."""
    largest = max(too_large, key=lambda config: config.micro_batch_size, default=baseline)
    if largest == baseline:
        return None
    return (
        f"The baseline does not fit into memory with a micro-batch of {largest.micro_batch_size}: everything is "
        f"compared with {baseline.micro_batch_size} × {baseline.grad_accum_steps} accumulation steps, at the same "
        "effective batch size."
    )


def said_by(records: Sequence[TrialRecord], baseline: TrainConfig) -> str | None:
    """The same, by what was recorded."""
    return said(baseline, out_of_memory(records))
