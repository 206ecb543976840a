"""A `best.yaml` as a search writes it."""

from __future__ import annotations

from typing import Any

from autotune.config import TrainConfig

_FIGURES: dict[str, Any] = {
    "samples_per_s_ci95": None,
    "step_time_s": 0.2,
    "data_wait_fraction": 0.1,
    "copy_fraction": 0.0,
    "forward_backward_fraction": 0.8,
    "optimizer_fraction": 0.1,
    "peak_memory_bytes": 1 << 28,
    "energy_j_per_sample": None,
    "steps": 40,
    "supply_per_s": 900.0,
    "demand_per_s": 160.0,
    "disturbed_blocks": 0,
    "bottleneck": "the step is the limit: 160 samples/s; the loader could deliver 900",
}
_CHECK: dict[str, Any] = {
    "name": "finite_loss",
    "passed": True,
    "value": 0.0,
    "limit": 0.0,
    "detail": "",
    "warns_only": False,
    "conclusive": True,
}
_FAST = TrainConfig(micro_batch_size=64, amp_dtype="bf16")


def result() -> dict[str, Any]:
    """With every section, each value one that a reader takes."""
    return {
        "format": 1,
        "study": "mine",
        "config": _FAST.to_dict(),
        "effective_batch_size": 64,
        "measured": {"samples_per_s": 150.0, **_FIGURES},
        "baseline": {"config": TrainConfig().to_dict(), "samples_per_s": 100.0, **_FIGURES},
        "speedup": {"ratio": 1.5, "ci95": [1.4, 1.6], "outcome": "faster", "pairs": 3, "probability_slower": 0.001},
        "settings": [
            {
                "set": {"amp_dtype": "bf16"},
                "instead_of": {"amp_dtype": "none"},
                "gain": 0.5,
                "ci95": [0.4, 0.6],
                "source": "measured",
                "known": True,
                "kept": True,
            }
        ],
        "stability": {
            "verdict": "unconfirmed",
            "checks": [_CHECK],
            "refused": [
                {
                    "config": _FAST.replace(amp_dtype="fp16").to_dict(),
                    "checks": [_CHECK | {"passed": False, "value": "NaN"}],
                }
            ],
        },
        "search": {
            "trials": 3,
            "sides": 0,
            "runs": 9,
            "by_status": {"ok": 9},
            "budget_s": 60.0,
            "elapsed_s": 50.0,
            "training_s": 30.0,
            "strategy": {
                "name": "auto",
                "predictions": 1,
                "median_error": 0.1,
                "within_interval": 1.0,
                "emitted": {
                    "predicted": {"samples_per_s": 140.0, "low": 120.0, "high": 160.0},
                    "measured_samples_per_s": 150.0,
                },
                "learned": {
                    "effects": [
                        {
                            "set": {"amp_dtype": "none"},
                            "instead_of": {"amp_dtype": "bf16"},
                            "ratio": 0.67,
                            "ci95": [0.6, 0.7],
                        }
                    ],
                    "facts": ["one process loads 900 samples/s"],
                },
                "left_to_gain": 0.01,
            },
        },
        "environment": {"device": "AMD EPYC", "device_kind": "cpu", "cpu": "AMD EPYC", "torch": "2.15.0"},
        "spec_sha256": "0" * 64,
        "created": "2026-01-31T12:00:00Z",
    }
