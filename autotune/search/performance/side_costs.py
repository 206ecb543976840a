"""Seconds, from request to end, of a run of one side and of a whole trial of the same configuration."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from autotune.config import TrainConfig
from autotune.measure.ready import HANDFUL
from autotune.search.performance.model import PerformanceModel
from autotune.search.performance.observation import Observation
from autotune.search.performance.process import Array
from autotune.search.performance.repeats import Run

_FEWEST_STEPS = 5
"""Optimizer steps of a whole trial after its first."""
_STEPS, _STEPS_S = 8, 0.6
"""The same of a step alone: so many, or so many seconds, whichever is longer."""
_BATCHES, _DRAIN_S, _ROUNDS = 64, 2.0, 2
"""Batches that are drained, unless that takes longer than the seconds; but so many in each process."""
_FORK_S, _WORKER_S = 0.1, 0.03
"""Seconds to start a process that drains, and each loader process."""


class SideCosts:
    """Costs, a row for each of `configs`."""

    def __init__(
        self,
        model: PerformanceModel,
        trials: Sequence[Run],
        sides: Sequence[Run],
        configs: Sequence[TrainConfig],
    ) -> None:
        """`trials`: at least one of them measured."""
        encoded = model.encoding.encode(configs)
        step_s = model.predict(encoded).step_s
        loading, _ = model.loading.predict(encoded.workers)
        workers = np.maximum(encoded.workers, 1.0)
        fetch_s = np.exp(loading) * encoded.batch * workers
        whole = [seen for _, seen in trials if seen.has_figure]
        steps = [seen for _, seen in sides if seen.side == "step" and seen.has_step]
        slow_first_s = statistics.median(
            _slow_first_s(seen) if config.compile == "none" else 0.0 for config, seen in trials if seen.has_figure
        )
        first_s = slow_first_s + step_s + model.costs.compiling_s(configs)
        sizes = {config.micro_batch_size for config, seen in sides if seen.side == "step"}
        loaded = np.array([config.micro_batch_size in sizes for config in configs])
        ready_s = np.where(loaded, 0.0, fetch_s * np.maximum(HANDFUL / workers, 1.0))
        timed_s = np.maximum(statistics.median(_after_first_s(seen) for seen in whole), _FEWEST_STEPS * step_s)
        self.whole_s: Array = statistics.median(seen.overhead_s for seen in whole) + first_s + fetch_s + timed_s
        alone_s = statistics.median(seen.overhead_s for seen in steps or whole)
        self.step_s: Array = alone_s + first_s + ready_s + np.maximum(_STEPS_S, _STEPS * step_s)
        drained_s = np.maximum(np.minimum(_BATCHES * fetch_s / workers, _DRAIN_S), _ROUNDS * fetch_s)
        self.loader_s: Array = _FORK_S + _WORKER_S * encoded.workers + fetch_s + drained_s


def _slow_first_s(seen: Observation) -> float:
    """Seconds that its first step took longer than others, without waiting for data."""
    return max((seen.first_step_s or 0.0) - seen.first_wait_s - seen.compute_s - seen.optimizer_s, 0.0)


def _after_first_s(seen: Observation) -> float:
    return seen.wall_s - seen.overhead_s - (seen.first_step_s or 0.0)
