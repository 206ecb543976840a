"""From trials to the figures that a study states."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotune.records import Block, Measurement, TrialRecord, TrialResult, TrialStatus
from autotune.stats import Estimate, throughput, throughput_interval


def is_ok(record: TrialRecord) -> bool:
    """Whether the trial came to a figure."""
    return record.result.status is TrialStatus.OK and bool(record.result.blocks)


def samples_per_s(record: TrialRecord) -> float:
    return throughput(record.result.blocks)


def measurement_of(result: TrialResult) -> Measurement:
    """What one run measured; its interval covers the spread inside the run only."""
    return measurement_of_runs([result], Estimate(throughput(result.blocks), throughput_interval(result.blocks)))


def measurement_of_runs(results: Sequence[TrialResult], estimate: Estimate) -> Measurement:
    """What several runs of one configuration measured together; `estimate` is their common throughput."""
    blocks: list[Block] = [block for result in results for block in result.blocks]
    steps = sum(block.steps for block in blocks)
    seconds = math.fsum(block.seconds for block in blocks)
    interval = estimate.interval
    return Measurement(
        samples_per_s=estimate.value,
        samples_per_s_ci95=(interval.low, interval.high) if interval else None,
        step_time_s=seconds / steps,
        data_wait_fraction=math.fsum(block.data_wait_s for block in blocks) / seconds,
        peak_memory_bytes=max(result.memory.peak_bytes if result.memory else 0 for result in results),
        steps=steps,
    )
