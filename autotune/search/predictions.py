"""How well the strategy's model predicted, and what it learned, for the result."""

from __future__ import annotations

import math
import statistics
from typing import Any

from autotune.config import TrainConfig
from autotune.records import Predicted, TrialRecord
from autotune.search.figures import is_ok, samples_per_s
from autotune.search.ledger import Ledger


def in_words(expected: Predicted) -> str:
    """`1,390 ± 40`; half the width of its 95 % interval."""
    return f"{expected.samples_per_s:,.0f} ± {(expected.high - expected.low) / 2:,.0f}"


def strategy_section(name: str, config: TrainConfig, ledger: Ledger) -> dict[str, Any]:
    """`search.strategy` of `best.yaml`: for the emitted `config` what was predicted and what its search trial measured,
    over all trials how far predictions were off, what the model learned, and by what share of the
    throughput further trials would raise it on average."""
    told = [record for record in ledger.records if record.predicted and is_ok(record)]
    section: dict[str, Any] = {"name": name, "predictions": len(told)}
    if told:
        section["median_error"] = round(statistics.median(map(_error, told)), 4)
        section["within_interval"] = round(sum(map(_is_within, told)) / len(told), 3)
    own = next((record for record in told if record.result.config == config), None)
    if own is not None and own.predicted is not None:
        figures = {key: round(value, 2) for key, value in own.predicted.model_dump().items()}
        section["emitted"] = {"predicted": figures, "measured_samples_per_s": round(samples_per_s(own), 2)}
    learned = ledger.learned()
    if ledger.strategy.gave_up:
        section["gave_up"] = ledger.strategy.gave_up
    if learned:
        section["learned"] = learned
    if math.isfinite(ledger.strategy.left_to_gain):
        section["left_to_gain"] = round(math.expm1(ledger.strategy.left_to_gain), 4)
    return section


def _error(record: TrialRecord) -> float:
    """Relative, of a trial with a prediction."""
    expected = record.predicted
    return abs(samples_per_s(record) / expected.samples_per_s - 1) if expected else 0.0


def _is_within(record: TrialRecord) -> bool:
    expected = record.predicted
    return expected is not None and expected.low <= samples_per_s(record) <= expected.high
