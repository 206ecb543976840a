"""What a strategy is: an Optuna sampler, and how it has to be told of trials that failed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any

from optuna.samplers import BaseSampler

from autotune.records import Facts
from autotune.search.space import Space


class Learning(Enum):
    """How a sampler learns that a point ran out of memory, diverged or timed out. Never as FAIL: samplers ignore those,
    and go back to the same wall again and again."""

    PRUNED = auto()
    """As a pruned trial, which TPE ranks below all others."""
    WORST_VALUE = auto()
    """As a complete trial with the worst value so far and a broken constraint: a Gaussian process sees no others."""


def _endless() -> float:
    return math.inf


@dataclass(frozen=True, kw_only=True)
class StrategyContext:
    """All that a strategy may look at when it builds its sampler."""

    space: Space
    facts: Facts
    seed: int
    seconds_left: Callable[[], float] = _endless
    """Seconds left of the search's share of the budget."""
    factory: str | None = None
    """`package.module:callable`, for the user's own sampler."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """As the spec gives them."""
    folder: Path = Path()
    """The spec's own, from which `factory` is importable."""


def _nothing() -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """Every file of this folder holds one, named `STRATEGY`."""

    name: str
    """As the spec says it; Optuna's own name where there is one."""
    build: Callable[[StrategyContext], BaseSampler]
    """Raises SpecError for arguments that the sampler does not take."""
    learns_failures_as: Learning
    begins_by_itself: bool = False
    """Whether it needs no expert's seeds, only the baseline."""
    warm_up: Callable[[], None] = _nothing
    """Import what the sampler imports lazily; called while the controller waits for the template anyway."""
