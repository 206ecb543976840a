"""What a strategy is: an Optuna sampler, and how it has to be told of trials that failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from optuna.samplers import BaseSampler

from autotune.search.space import Space


class Learning(Enum):
    """How a sampler learns that a point ran out of memory, diverged or timed out. Never as FAIL: samplers ignore those,
    and go back to the same wall again and again."""

    PRUNED = auto()
    """As a pruned trial, which TPE ranks below all others."""
    WORST_VALUE = auto()
    """As a complete trial with the worst value so far and a broken constraint: a Gaussian process sees no others."""


def _nothing() -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """Every file of this folder holds one, named `STRATEGY`."""

    name: str
    """As the spec says it; Optuna's own name where there is one."""
    build: Callable[[Space, int], BaseSampler]
    """The sampler for a space and a seed."""
    learns_failures_as: Learning
    warm_up: Callable[[], None] = _nothing
    """Import what the sampler imports lazily; called while the controller waits for the template anyway."""
