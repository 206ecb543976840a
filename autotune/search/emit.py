"""From a study to the document of `best.yaml`: the configuration, what it is worth, and how far that can be trusted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from autotune.config import TrainConfig
from autotune.emitted import FORMAT, batch_change
from autotune.records import Check, Facts, Measurement, Purpose, TrialRecord
from autotune.search.bottleneck import bottleneck
from autotune.search.budget import Budget
from autotune.search.decide.verdict import Verdict
from autotune.search.ledger import Ledger
from autotune.search.predictions import strategy_section
from autotune.search.tried_workers import tried_workers

_OF_RATES = frozenset({"supply_per_s", "demand_per_s", "fetch_s", "fetch_cpu_s", "epoch_edge_fraction"})


def best_document(
    verdict: Verdict, *, study: str, strategy: str, ledger: Ledger, budget: Budget, facts: Facts, spec_sha256: str
) -> dict[str, Any]:
    """`best.yaml` as a plain document; keys are stable, units stand in the names."""
    speedup, interval = verdict.speedup, verdict.speedup.ratio.interval
    config, baseline = verdict.config, verdict.baseline_config
    change = batch_change(config, baseline)
    return {
        "format": FORMAT,
        "study": study,
        "config": config.to_dict(),
        "effective_batch_size": config.effective_batch_size,
        **({"effective_batch_change": change} if change else {}),
        "measured": _figures(verdict.measured, config, facts, ledger.records),
        "baseline": {"config": baseline.to_dict(), **_figures(verdict.baseline, baseline, facts, ledger.records)},
        "speedup": {
            "ratio": round(speedup.ratio.value, 4),
            "ci95": [round(interval.low, 4), round(interval.high, 4)] if interval else None,
            "outcome": str(speedup.outcome),
            "pairs": speedup.pairs,
            "probability_slower": None if interval is None else round(speedup.slower, 6),
        },
        "settings": list(verdict.settings),
        "stability": {
            "verdict": verdict.word,
            "checks": plain(verdict.checks),
            "refused": [
                {"config": other.to_dict(), "checks": plain(failed)} for other, failed in verdict.refused.items()
            ],
        },
        "search": _effort(ledger.records, budget) | {"strategy": strategy_section(strategy, config, ledger)},
        "environment": environment_of(facts),
        "spec_sha256": spec_sha256,
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def plain(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """As records have them: a value that is not finite as text, for who reads `best.yaml` takes no such number."""
    return [json.loads(check.model_dump_json()) for check in checks]


def _figures(
    measurement: Measurement, config: TrainConfig, facts: Facts, records: Sequence[TrialRecord]
) -> dict[str, Any]:
    """What is not known of rates is left out."""
    limit = bottleneck(measurement, config, facts, tried_workers(config, measurement.samples_per_s, records))
    figures = measurement.model_dump(mode="json") | {"bottleneck": limit}
    figures = {key: value for key, value in figures.items() if value is not None or key not in _OF_RATES}
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in figures.items()} | {
        "samples_per_s_ci95": [round(end, 3) for end in measurement.samples_per_s_ci95 or ()] or None
    }


def _effort(records: Sequence[TrialRecord], budget: Budget) -> dict[str, Any]:
    by_status: dict[str, int] = {}
    for record in records:
        by_status[str(record.result.status)] = by_status.get(str(record.result.status), 0) + 1
    training_s = sum(record.result.training_s for record in records)
    return {
        "trials": sum(record.optuna_trial is not None for record in records),
        "sides": sum(record.purpose is Purpose.SIDE for record in records),
        "runs": len(records),
        "by_status": by_status,
        "budget_s": round(budget.total_s, 1),
        "elapsed_s": round(budget.elapsed_s, 1),
        "training_s": round(training_s, 1),
    }


def environment_of(facts: Facts) -> dict[str, Any]:
    """Device, processor and versions, as `best.yaml` states them."""
    return {"device": facts.device.name, "device_kind": facts.device.kind, "cpu": facts.host.cpu, **facts.host.versions}
