"""One-at-a-time steps from the baseline to the best: measured if a trial of exactly that configuration was run, else
predicted by the study's performance model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from autotune.config import KnobValue, TrainConfig
from autotune.report.reading import Reading
from autotune.report.tried import tried
from autotune.search.earning import grouped
from autotune.search.performance import PerformanceModel
from autotune.search.performance.fitting import model_of_records

_SURE = 1.96


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One configuration on the way, and how it differs from the one before."""

    config: TrainConfig
    changes: dict[str, tuple[KnobValue, KnobValue]]
    """Knob → (value, the value before); empty for the baseline."""
    samples_per_s: float
    predicted: bool
    low: float | None = None
    """The model's 95 % interval for the configuration; None if it was measured."""
    high: float | None = None


@lru_cache(maxsize=2)
def fitted_model(reading: Reading) -> PerformanceModel:
    """A model fitted only to the records, which every strategy writes."""
    return model_of_records(reading.space, reading.facts, reading.records)


@lru_cache(maxsize=2)
def ladder(reading: Reading) -> tuple[Rung, ...]:
    """From the baseline to the result; only the baseline if it is the result.

    Greedy: the next step is always the fastest of those that are left. The first and the last configuration are
    measured.
    """
    known = tried(reading)
    goal = reading.emitted
    current = reading.baseline
    start = float(reading.document["baseline"]["samples_per_s"])
    rungs = [Rung(config=current, changes={}, samples_per_s=start, predicted=False)]
    while current != goal:
        choices = [_rung(reading, current, one) for one in _next_steps(current, goal)]
        rungs.append(max(choices, key=lambda rung: rung.samples_per_s))
        current = rungs[-1].config
    return tuple(rungs) if known else tuple(rungs[:1])


def _next_steps(current: TrainConfig, goal: TrainConfig) -> Iterator[TrainConfig]:
    left = goal.differences(current)
    for knobs in grouped(left):
        yield current.with_values({knob: left[knob][0] for knob in knobs})


def _rung(reading: Reading, before: TrainConfig, config: TrainConfig) -> Rung:
    changes = config.differences(before)
    measured = tried(reading).get(config)
    if measured is not None:
        return Rung(config=config, changes=changes, samples_per_s=measured.samples_per_s, predicted=False)
    value, low, high = expectations(reading, [config])[0]
    return Rung(config=config, changes=changes, samples_per_s=value, predicted=True, low=low, high=high)


def expectations(reading: Reading, configs: Sequence[TrainConfig]) -> list[tuple[float, float, float]]:
    """Samples per second that the model predicts for each configuration, with the ends of its 95 % interval."""
    model = fitted_model(reading)
    found = model.predict(model.encoding.encode(list(configs)))
    return [
        (math.exp(mean), math.exp(mean - _SURE * doubt), math.exp(mean + _SURE * doubt))
        for mean, doubt in zip(found.mean.tolist(), found.doubt.tolist(), strict=True)
    ]
