"""Configurations that ran more than once: what their runs say together, and how much two runs of one differ."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from autotune.config import TrainConfig
from autotune.records import SlowBatches
from autotune.search.performance.observation import Observation

Run = tuple[TrainConfig, Observation]

_FACTORS = ("samples_per_s", "compute_s", "optimizer_s", "data_wait_s", "supply_s", "fetch_cpu_s")
"""Fields of an observation that are averaged in their logarithms, which is where noise is alike for all."""
_ERRORS = ("relative_error", "step_error", "supply_error")


class Repeats(NamedTuple):
    """How far the runs of one configuration are from their mean, over all configurations that ran more than once."""

    squares: float = 0.0
    """Sum of the squared deviations of ln(samples per second)."""
    freedom: int = 0
    """Degrees of freedom: runs − configurations."""
    within: float = 0.0
    """Variance of one run's logarithm by the noise inside it, which it knows itself."""

    def log_likelihood(self, between: float) -> float:
        """How likely that standard deviation between runs is, beyond the noise inside them; but for a constant."""
        variance = between**2 + self.within
        return -0.5 * (self.freedom * math.log(variance) + self.squares / variance) if self.freedom else 0.0

    def slope(self, between: float) -> float:
        """Derivative of `log_likelihood` by the logarithm of `between`."""
        variance = between**2 + self.within
        return (self.squares / variance - self.freedom) * between**2 / variance if self.freedom else 0.0

    def spread(self, usual: float, worth: int) -> float:
        """Standard deviation between runs, pooled with a usual one that counts as so many degrees of freedom."""
        return math.sqrt((worth * usual**2 + self.squares) / (worth + self.freedom))


NO_REPEATS = Repeats()


def repeats(runs: Iterable[Run]) -> Repeats:
    """By those of `runs` that measured something. What is common to all runs of the search, against those of the
    confirmation, is taken for noise: a machine that has changed in between will change again."""
    repeated = [alike for alike in _by_config(runs).values() if len(alike) > 1]
    logs = [[math.log(seen.samples_per_s or 0.0) for seen in alike] for alike in repeated]
    known = [seen.relative_error**2 for alike in repeated for seen in alike]
    return Repeats(
        squares=math.fsum((len(values) - 1) * statistics.variance(values) for values in logs),
        freedom=sum(len(values) - 1 for values in logs),
        within=statistics.median(known) if known else 0.0,
    )


def pooled(trials: Iterable[Run], again: Iterable[Run]) -> list[Run]:
    """`trials` in their order. Those with a measurement are combined with what their further runs have seen."""
    others = _by_config(again)
    return [
        (config, _mean([seen, *others[config]]) if seen.has_figure and config in others else seen)
        for config, seen in trials
    ]


def _by_config(runs: Iterable[Run]) -> dict[TrainConfig, list[Observation]]:
    found: dict[TrainConfig, list[Observation]] = {}
    for config, seen in runs:
        if seen.has_figure:
            found.setdefault(config, []).append(seen)
    return found


def _mean(alike: Sequence[Observation]) -> Observation:
    """One observation from several runs."""
    changed: dict[str, Any] = {}
    for field in _FACTORS:
        values = [getattr(seen, field) for seen in alike]
        if all(values):
            changed[field] = statistics.geometric_mean(values)
    for field in _ERRORS:
        values = [getattr(seen, field) for seen in alike]
        if None not in values:
            changed[field] = math.sqrt(math.fsum(value**2 for value in values)) / len(values)
    slow = sum((seen.slow for seen in alike), SlowBatches())
    changed |= {"loaded_batches": slow.batches, "slow_batches": slow.slow, "slow_times": slow.times}
    return replace(alike[0], runs=len(alike), **changed)
