"""The verdict: which configuration is emitted, with which measurements, gates and outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autotune.config import TrainConfig
from autotune.records import Check, Measurement
from autotune.stats import Comparison

STABLE, UNCONFIRMED = "stable", "unconfirmed"
Closest = tuple[TrainConfig, Comparison]
"""The best of those that are not worthwhile, and how it compares with the baseline."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What `best.yaml` says of the study."""

    config: TrainConfig
    measured: Measurement
    baseline_config: TrainConfig
    baseline: Measurement
    speedup: Comparison
    word: str = UNCONFIRMED
    checks: Sequence[Check] = ()
    refused: Mapping[TrainConfig, Sequence[Check]] = field(default_factory=dict)
    settings: Sequence[Mapping[str, Any]] = ()
