"""How long one sample takes to load: in the training process itself, and from loader processes that share the work."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autotune.config import TrainConfig
from autotune.search.performance.observation import Observation
from autotune.search.performance.process import Array

_UNKNOWN_LN_S, _UNKNOWN_DOUBT = math.log(1e-3), 2.0
"""A millisecond a sample, give or take a factor of seven, before any trial has loaded one."""
_RUN_TO_RUN = 0.1
_OVERHEAD, _OVERHEAD_DOUBT = 0.1, 0.35
"""What loader processes lose by handing batches over and by sharing cores, on top of an even split of the work."""
_WAITING = 0.1
"""Share of a step's time from which on the loader is what it waits for."""


@dataclass(frozen=True)
class Loading:
    """Logarithms of seconds per sample: one process's, and what sharing adds to an even split; with their doubts."""

    alone: float = _UNKNOWN_LN_S
    alone_doubt: float = _UNKNOWN_DOUBT
    sharing: float = _OVERHEAD
    sharing_doubt: float = _OVERHEAD_DOUBT
    cores: int = 1
    overlaps: bool = False
    """Whether the training process itself loads while the device computes, as it does with an accelerator."""

    def hidden(self, workers: Array) -> NDArray[np.bool_]:
        """Whether loading takes place while the step before is computed, so that only the longer of the two counts."""
        return (workers > 0) | self.overlaps

    def predict(self, workers: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of ln(seconds per sample), for so many loader processes."""
        split = np.log(np.clip(workers, 1, self.cores))
        shared = workers > 0
        mean = self.alone + np.where(shared, self.sharing - split, 0.0)
        return mean, np.sqrt(self.alone_doubt**2 + np.where(shared, self.sharing_doubt**2, 0.0))

    def covariance(self, workers: Array, others: Array) -> Array:
        """Of ln(seconds per sample) for `workers` with that for `others`: all load the same samples, and those without
        loader processes share nothing."""
        return np.asarray(self.alone_doubt**2 + self.sharing_doubt**2 * np.outer(workers > 0, others > 0))


def learn_loading(trials: list[tuple[TrainConfig, Observation]], cores: int, *, overlaps: bool) -> Loading:
    """From trials with a figure.

    Where loading takes turns with computing, a trial tells its time directly. Where it is hidden behind computing, a
    trial tells it if steps wait for data; if they do not, it tells what it cannot exceed: a faster step would learn
    nothing from more processes.
    """
    if overlaps:
        single = [_shared(config, seen, cores) for config, seen in trials if not config.num_workers]
        alone = [pace for pace, waits in single if waits]
        most = min((pace for pace, waits in single if not waits), default=math.inf)
    else:
        alone = [
            math.log(max(seen.data_wait_s, 1e-9) / config.device_batch_size)
            for config, seen in trials
            if not config.num_workers
        ]
        most = math.inf
    shared = [_shared(config, seen, cores) for config, seen in trials if config.num_workers]
    bound = [pace for pace, waits in shared if waits]
    ceiling = min((pace for pace, waits in shared if not waits), default=math.inf)
    if alone:
        centre, doubt = _posterior(_UNKNOWN_LN_S, _UNKNOWN_DOUBT, alone, _RUN_TO_RUN)
    else:  # from what they share, as if sharing cost what it usually does
        centre, doubt = _posterior(
            min(_UNKNOWN_LN_S, ceiling - _OVERHEAD, most), _UNKNOWN_DOUBT, [pace - _OVERHEAD for pace in bound], 0.4
        )
    usual = min(_OVERHEAD, ceiling - centre)
    sharing, sharing_doubt = _posterior(usual, _OVERHEAD_DOUBT, [pace - centre for pace in bound], 2 * _RUN_TO_RUN)
    return Loading(centre, doubt, sharing, sharing_doubt, cores, overlaps)


def _shared(config: TrainConfig, seen: Observation, cores: int) -> tuple[float, bool]:
    """ln(seconds per sample that all loader processes together would take if split evenly), and whether steps wait."""
    step_s = seen.data_wait_s + seen.compute_s + seen.optimizer_s
    pace = math.log(step_s / config.device_batch_size) + math.log(min(max(config.num_workers, 1), cores))
    return pace, seen.data_wait_s > _WAITING * step_s


def _posterior(prior: float, doubt: float, values: list[float], noise: float) -> tuple[float, float]:
    """Of a mean, from independent values: normal prior, normal noise."""
    precision = 1 / doubt**2 + len(values) / noise**2
    centre = (prior / doubt**2 + math.fsum(values) / noise**2) / precision
    return centre, 1 / math.sqrt(precision)
