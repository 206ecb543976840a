"""How long a sample takes to load: in the training process itself, and from loader processes that share the work.

A loader process computes for a sample's CPU seconds and waits for the rest, for a disk, a network or a lock. Waiting
processes do not stand in one another's way, computing ones share the cores. So W processes deliver a sample every

    max( wall ÷ W^(1 - crowding),  computing · wall ÷ cores left )        seconds,

as a smooth maximum, where `wall` is what one process takes for it, `computing` the share of it that is CPU time, and
the cores left are those that the training step, on a CPU, leaves to as many processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.config import TrainConfig
from autotune.search.performance.observation import Observation
from autotune.search.performance.process import Array

_ALONE, _SHARING, _CROWDING, _COMPUTING = range(4)
"""Parameters: ln(wall seconds of a sample in the training process), what a loader process takes beyond that for handing
the batch over, how far a doubling of the processes falls short of half the time, ln(share of CPU time)."""
_PRIOR = np.array([math.log(1e-3), 0.1, 0.0, 0.0])
_PRIOR_DOUBTS = np.array([2.0, 0.35, 0.1, 0.05])
"""A millisecond a sample, give or take a factor of seven; as long as nobody has counted CPU seconds, all of it
computing."""
_COUNTED_DOUBT = 3.0
"""Of the share of CPU time, where it is counted: anything from computing alone to hardly any."""
_RUN_TO_RUN = 0.1
_RATES_RUN_TO_RUN = 0.05
"""The same of rates, which are measured for themselves."""
_CPU_ERROR = 0.1
"""Of the logarithm of counted CPU seconds: clocks and caches differ by what else runs."""
_WAITING = 0.1
"""Share of a step's time from which on the loader is what it waits for, in records without rates."""
_WAITS_BELOW = 0.7
"""Share of CPU time below which more processes than cores are worth trying."""
_SHARPNESS = 40.0
"""Of the larger of the two limits, as a norm: hardly any, as processes that find a core each do not wait for cores."""
_ITERATIONS = 12


class Beside(NamedTuple):
    """The training step that runs beside loader processes and needs cores too."""

    threads: Array
    """Of it that compute: on a CPU its intra-op threads, else the one that feeds the device."""
    seconds: Array
    """For a sample, while a batch is ready."""


@dataclass(frozen=True)
class Loading:
    """What is known of loading: the most probable parameters, and how far off they may be."""

    parameters: Array = field(default_factory=_PRIOR.copy)
    doubts: Array = field(default_factory=lambda: np.diag(_PRIOR_DOUBTS**2))
    """Covariance matrix of the parameters."""
    cores: int = 1
    overlaps: bool = False
    """Whether the training process itself loads while the device computes, as it does with an accelerator."""
    counted: bool = False
    """Whether any trial has counted CPU seconds."""

    @property
    def alone_s(self) -> float:
        """Wall seconds of a sample in the training process."""
        return math.exp(self.parameters[_ALONE])

    @property
    def alone_doubt(self) -> float:
        """Standard deviation of its logarithm."""
        return math.sqrt(self.doubts[_ALONE, _ALONE])

    @property
    def computing(self) -> float:
        """Share of a loader process's time that it computes; the rest it waits."""
        return math.exp(self.parameters[_COMPUTING])

    @property
    def waits(self) -> bool:
        """Whether trials have shown that loading waits, so that more processes than cores can help."""
        return self.counted and self.computing < _WAITS_BELOW

    def hidden(self, workers: Array) -> NDArray[np.bool_]:
        """Whether loading takes place while the step before is computed, so that only the longer of the two counts."""
        return (workers > 0) | self.overlaps

    def predict(self, workers: Array, beside: Beside | None = None) -> tuple[Array, Array]:
        """ln(seconds between two samples) of so many loader processes, and how it changes with the parameters: the
        gradient, (rows, parameters)."""
        alone, sharing, crowding, computing = self.parameters
        count = np.maximum(workers, 1.0)
        by_processes = alone + sharing - (1 - crowding) * np.log(count)
        by_cores = np.full(len(count), alone + sharing + computing - math.log(self.cores))
        if beside is not None:
            busy = np.minimum(beside.seconds / np.exp(np.logaddexp(by_processes, by_cores)), 1.0)
            by_cores = by_cores + np.log1p(beside.threads * busy / count)
        both = np.logaddexp(_SHARPNESS * by_processes, _SHARPNESS * by_cores)
        of_processes = np.exp(_SHARPNESS * by_processes - both)
        shared = workers > 0
        gradient = np.zeros((len(count), len(self.parameters)))
        gradient[:, _ALONE] = 1.0
        gradient[:, _SHARING] = shared
        gradient[:, _CROWDING] = np.where(shared, of_processes * np.log(count), 0.0)
        gradient[:, _COMPUTING] = np.where(shared, 1 - of_processes, 0.0)
        return np.where(shared, both / _SHARPNESS, alone), gradient

    def deviation(self, gradient: Array) -> Array:
        """Standard deviation of each prediction with this gradient."""
        return np.asarray(np.sqrt(np.einsum("ij,jk,ik->i", gradient, self.doubts, gradient)))

    def covariance(self, gradient: Array, others: Array) -> Array:
        """Of predictions with these gradients: all load the same samples."""
        return np.asarray(gradient @ self.doubts @ others.T)

    def slows_down(self, workers: Array, threads: Array) -> Array:
        """ln(how many times longer a step of so many threads takes on a CPU beside so many loader processes).

        Threads that have to share their cores with others run at about half their speed, and all others wait for them
        at the end of every operator. Processes that wait take no core.
        """
        short = np.clip(threads + workers * self.computing - self.cores, 0.0, 1.0)
        return np.where((workers > 0) & (threads > 1), np.log1p(short**2), 0.0)


class _Told(NamedTuple):
    """What one trial tells of loading."""

    workers: int
    value: float
    """ln(seconds of a sample)."""
    error: float
    at_most: bool = False
    """Only that loading takes no longer: the step never waited."""
    of_cpu: bool = False
    """CPU seconds of one process, not seconds between two samples."""
    threads: float = 0.0
    step_s: float = 0.0


def learn_loading(
    trials: Sequence[tuple[TrainConfig, Observation]], cores: int, *, overlaps: bool, threads: int = 1
) -> Loading:
    """From trials with a figure. `threads`: of a step whose configuration names none.

    A trial with rates tells what its loader delivers, whatever the step takes. One without, of earlier records, tells
    it where loading takes turns with computing; where it is hidden behind computing, if steps wait for data. If they do
    not, it tells what loading cannot exceed.
    """
    told = [each for config, seen in trials for each in _told(config, seen, overlaps=overlaps, threads=threads)]
    counted = any(each.of_cpu for each in told)
    doubts = _PRIOR_DOUBTS.copy()
    if counted:
        doubts[_COMPUTING] = _COUNTED_DOUBT
    precision = np.diag(1 / doubts**2)
    loading = Loading(_start(told), np.diag(doubts**2), cores, overlaps, counted)
    for _ in range(_ITERATIONS if told else 0):  # Gauss-Newton: the model is nearly linear in its parameters
        expected, gradient = _expected(loading, told)
        errors = np.array([each.error for each in told])
        missing = np.array([each.value for each in told]) - expected
        telling = np.array([not each.at_most for each in told]) | (missing < 0)
        weights = np.where(telling, errors**-2.0, 0.0)
        surprise = gradient.T @ (weights * missing) + precision @ (_PRIOR - loading.parameters)
        covariance = np.linalg.inv(precision + gradient.T @ (weights[:, None] * gradient))
        step = np.clip(covariance @ surprise, -1.0, 1.0)
        step[_COMPUTING] = min(
            step[_COMPUTING], -loading.parameters[_COMPUTING]
        )  # nothing computes all the time and more
        loading = Loading(loading.parameters + step, np.asarray(covariance), cores, overlaps, counted)
        if np.abs(step).max() < 1e-4:
            break
    return loading


def _start(told: Sequence[_Told]) -> Array:
    """The prior, with the level that the trials show: of the one whose processes stood least in one another's way."""
    walls = [each.value + math.log(max(each.workers, 1)) for each in told if not each.of_cpu]
    computing = [each.value for each in told if each.of_cpu]
    start = _PRIOR.copy()
    if walls:
        start[_ALONE] = min(walls)
    if computing:
        start[_COMPUTING] = min(float(np.median(computing)) - start[_ALONE], 0.0)
    return start


def _expected(loading: Loading, told: Sequence[_Told]) -> tuple[Array, Array]:
    """What each of `told` should be by `loading`, and its gradient."""
    workers = np.array([float(each.workers) for each in told])
    beside = Beside(np.array([each.threads for each in told]), np.array([each.step_s for each in told]))
    expected, gradient = loading.predict(workers, beside)
    of_cpu = np.array([each.of_cpu for each in told])
    own = np.stack([np.ones(len(told)), workers > 0, np.zeros(len(told)), np.ones(len(told))], axis=1)
    return np.where(of_cpu, own @ loading.parameters, expected), np.where(of_cpu[:, None], own, gradient)


def _told(config: TrainConfig, seen: Observation, *, overlaps: bool, threads: int) -> list[_Told]:
    samples, workers = config.device_batch_size, config.num_workers
    busy = 1.0 if overlaps else float(config.num_threads or threads)
    pace = partial(_Told, workers, threads=busy, step_s=(seen.compute_s + seen.optimizer_s) / samples)
    if seen.supply_s is not None:
        told = [pace(math.log(seen.supply_s), math.hypot(seen.supply_error, _RATES_RUN_TO_RUN))]
        if seen.fetch_cpu_s is not None:
            told.append(
                _Told(
                    workers,
                    math.log(max(min(seen.fetch_cpu_s, max(workers, 1) * seen.supply_s), 1e-9)),
                    _CPU_ERROR,
                    of_cpu=True,
                )
            )
        return told
    if not workers and not overlaps:
        return [_Told(0, math.log(max(seen.data_wait_s, 1e-9) / samples), _RUN_TO_RUN)]
    step_s = seen.data_wait_s + seen.compute_s + seen.optimizer_s
    if seen.data_wait_s > _WAITING * step_s:
        return [pace(math.log(step_s / samples), 2 * _RUN_TO_RUN if workers else _RUN_TO_RUN)]
    return [pace(math.log(step_s / samples), _RUN_TO_RUN, at_most=True)]
