"""A performance model from the records of a study, whichever strategy made them."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.records import ALIKE, SEARCHING, Facts, Purpose, TrialRecord
from autotune.search.figures import is_ok, samples_per_s
from autotune.search.performance.model import PerformanceModel
from autotune.search.performance.observation import observe
from autotune.search.performance.repeats import Run
from autotune.search.space import Space

_MOST_TO_LEARN_FROM = 300
"""Trials: the model's cost grows with their cube, and the fastest and the latest tell most about the best."""


def model_of_records(space: Space, facts: Facts, records: Sequence[TrialRecord]) -> PerformanceModel:
    """The model fitted to the search trials among `records`, in their order. At least one must have a measurement. The
    confirming runs only tell how much runs differ; their throughput is used to compare what may be emitted."""
    kept = [record for record in records if record.purpose in SEARCHING]
    if len(kept) > _MOST_TO_LEARN_FROM:
        half = _MOST_TO_LEARN_FROM // 2
        fastest = sorted(filter(is_ok, kept), key=samples_per_s, reverse=True)[:half]
        numbers = {record.number for record in (*fastest, *kept[-half:])}
        kept = [record for record in kept if record.number in numbers]
    model = PerformanceModel(space, facts)
    alike = [record for record in records if record.purpose in ALIKE]
    sides = [record for record in records if record.purpose is Purpose.SIDE]
    model.fit(_runs(kept), noise_of=_runs(alike), sides=_runs(sides))
    return model


def _runs(records: Sequence[TrialRecord]) -> list[Run]:
    return [(record.result.config, observe(record.result)) for record in records]
