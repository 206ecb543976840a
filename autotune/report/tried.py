"""One row for each configuration that a study measured, once or several times."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from autotune.config import TrainConfig
from autotune.records import ALIKE, Purpose, TrialRecord
from autotune.report.reading import Reading
from autotune.search.figures import is_ok, samples_per_s

CLOSE = 0.03
"""Share of the result's throughput: a configuration this close may be the better choice for another reason."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One configuration, and what its runs showed together."""

    config: TrainConfig
    samples_per_s: float
    peak_memory_bytes: int
    runs: int
    confirmed: bool
    """Measured in confirming runs; otherwise only by one run of the search, which may have been lucky."""
    eligible: bool
    """Whether it meets the spec's constraints, and no stability gate refused it."""


@lru_cache(maxsize=2)
def tried(reading: Reading) -> dict[TrainConfig, Tried]:
    """All measured configurations, in the order of their first trial. For the best and the baseline, the values of
    `best.yaml` apply."""
    runs: dict[TrainConfig, list[TrialRecord]] = {}
    for record in reading.records:
        if is_ok(record) and record.purpose in ALIKE:
            runs.setdefault(record.result.config, []).append(record)
    found = {config: _together(reading, config, records) for config, records in runs.items()}
    for config, section in _stated(reading):
        if config in found:
            found[config] = Tried(
                config=config,
                samples_per_s=section["samples_per_s"],
                peak_memory_bytes=section["peak_memory_bytes"],
                runs=found[config].runs,
                confirmed=found[config].confirmed,
                eligible=config == reading.emitted or found[config].eligible,
            )
    return found


def smallest_close(reading: Reading) -> Tried | None:
    """The configuration with the least memory among those within 3 % of the result; None if there is none."""
    least = (1 - CLOSE) * float(reading.document["measured"]["samples_per_s"])
    near = [one for one in tried(reading).values() if one.eligible and one.samples_per_s >= least]
    return min(near, key=lambda one: (one.peak_memory_bytes, one.config != reading.emitted), default=None)


def _together(reading: Reading, config: TrainConfig, records: Sequence[TrialRecord]) -> Tried:
    confirming = [record for record in records if record.purpose is Purpose.CONFIRM]
    counted = confirming or records
    return Tried(
        config=config,
        samples_per_s=statistics.median(samples_per_s(record) for record in counted),
        peak_memory_bytes=max(record.result.memory.peak_bytes if record.result.memory else 0 for record in records),
        runs=len(records),
        confirmed=bool(confirming),
        eligible=config not in reading.refused and all(map(reading.meets_constraints, counted)),
    )


def _stated(reading: Reading) -> list[tuple[TrainConfig, dict[str, Any]]]:
    return [(reading.baseline, reading.document["baseline"]), (reading.emitted, reading.document["measured"])]
