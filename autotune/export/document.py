"""The result as plain values, for the targets that are data: `yaml` and `json`."""

from __future__ import annotations

from typing import Any

from autotune.config import KNOB_NAMES
from autotune.emitted import Emitted, Measured
from autotune.export.target import Source


def document(source: Source) -> dict[str, Any]:
    """Settings first; keys and units as in `best.yaml`."""
    emitted = source.emitted
    return {
        "config": emitted.config.to_dict(),
        "effective_batch_size": emitted.config.effective_batch_size,
        **_usual_rules(emitted),
        "measured": _figures(emitted.best),
        "baseline": {"config": emitted.baseline.config.to_dict(), **_figures(emitted.baseline)},
        "speedup": {"ratio": emitted.speedup, "ci95": _ends(emitted.speedup_ci95)},
        "verdict": emitted.verdict,
        "study": emitted.study,
        "environment": dict(emitted.environment),
    }


def _usual_rules(emitted: Emitted) -> dict[str, Any]:
    """The learning-rate factors of the rules in `batch_change`, if the effective batch size changes."""
    factor = emitted.config.effective_batch_size / emitted.baseline.config.effective_batch_size
    rules = {"linear": round(factor, 4), "square_root": round(factor**0.5, 4)}
    return {} if factor == 1 else {"learning_rate_factor": rules}


def _figures(measured: Measured) -> dict[str, Any]:
    return {"samples_per_s": measured.samples_per_s, "samples_per_s_ci95": _ends(measured.samples_per_s_ci95)}


def _ends(interval: tuple[float, float] | None) -> list[float] | None:
    return list(interval) if interval else None


def every_custom(source: Source) -> tuple[str, ...]:
    return tuple(name for name, _ in source.config.custom)


ALL_KNOBS = frozenset(KNOB_NAMES)
