"""Checks that the numbers of a record are possible: a file may contain any numbers, and calculations fail with some."""

from __future__ import annotations

import math
from collections.abc import Iterator

from autotune.records.trial import TrialRecord

_MOST = 1e15
_LEAST_S = 1e-9


def require_figures(record: TrialRecord) -> None:
    """Raises ValueError, in one line, for a number that no run can have."""
    for name, value, least in _figures(record):
        if not least <= value <= _MOST:
            raise ValueError(f"{name} is {value:g}, which is not possible")


def _figures(record: TrialRecord) -> Iterator[tuple[str, float, float]]:
    """Name, value, and the smallest allowed value."""
    result = record.result
    yield "elapsed_s", record.elapsed_s, 0.0
    yield "result.wall_s", result.wall_s, 0.0
    for place, block in enumerate(result.blocks):
        where = f"result.blocks.{place}"
        yield f"{where}.seconds", block.seconds, _LEAST_S
        yield f"{where}.samples", block.samples, 1
        yield f"{where}.steps", block.steps, 1
        for phase, seconds in block.phases.items():
            yield f"{where}.phases.{phase}", seconds, -_MOST
    if result.rates is not None:
        yield "result.rates.sustained_per_s", result.rates.sustained_per_s, _LEAST_S
    for part in (result.rates, result.side_rate, result.warm_up, result.memory):
        for name, value in part or ():
            if isinstance(value, float | int) and value != math.inf:
                yield f"result.{name}", value, 0.0 if isinstance(value, float) else -_MOST
