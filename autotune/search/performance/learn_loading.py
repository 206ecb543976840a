"""What trials tell of loading: the parameters of `Loading`, by Gauss-Newton steps from their prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from autotune.config import TrainConfig
from autotune.search.performance.loading import ALONE, COMPUTING, PRIOR, PRIOR_DOUBTS, Beside, Loading
from autotune.search.performance.observation import Observation
from autotune.search.performance.process import Array

_COUNTED_DOUBT = 3.0
"""Doubt about the share of CPU time, where it is counted: anything from computing alone to hardly any."""
_RUN_TO_RUN = 0.1
_RATES_RUN_TO_RUN = 0.05
"""The same of rates, which are measured for themselves."""
_CPU_ERROR = 0.1
"""Error of the logarithm of counted CPU seconds: clocks and caches differ by what else runs."""
_WAITING = 0.1
"""Share of a step's time from which on the loader is what it waits for, in records without rates."""
_ITERATIONS = 12


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
    """From measured trials. `threads`: of a step whose configuration names none.

    A trial with rates tells what its loader delivers, whatever the step takes. One without, of earlier records, tells
    it where loading takes turns with computing; where it is hidden behind computing, if steps wait for data. If they do
    not, it tells what loading cannot exceed.
    """
    told = [each for config, seen in trials for each in _told(config, seen, overlaps=overlaps, threads=threads)]
    counted = any(each.of_cpu for each in told)
    doubts = PRIOR_DOUBTS.copy()
    if counted:
        doubts[COMPUTING] = _COUNTED_DOUBT
    precision = np.diag(1 / doubts**2)
    loading = Loading(_start(told), np.diag(doubts**2), cores, overlaps, counted)
    for _ in range(_ITERATIONS if told else 0):  # Gauss-Newton: the model is nearly linear in its parameters
        expected, gradient = _expected(loading, told)
        errors = np.array([each.error for each in told])
        missing = np.array([each.value for each in told]) - expected
        telling = np.array([not each.at_most for each in told]) | (missing < 0)
        weights = np.where(telling, errors**-2.0, 0.0)
        surprise = gradient.T @ (weights * missing) + precision @ (PRIOR - loading.parameters)
        information = precision + gradient.T @ (weights[:, None] * gradient)
        step = np.clip(_step(information, surprise, -loading.parameters[COMPUTING]), -1.0, 1.0)
        covariance = np.asarray(np.linalg.inv(information))
        loading = Loading(loading.parameters + step, covariance, cores, overlaps, counted)
        if np.abs(step).max() < 1e-4:
            break
    return loading


def _step(information: Array, surprise: Array, most_computing: float) -> Array:
    """A step to the most probable parameters. No process computes more than all the time; the other parameters adjust
    to that."""
    step = np.linalg.solve(information, surprise)
    if step[COMPUTING] <= most_computing:
        return np.asarray(step)
    others = [number for number in range(len(step)) if number != COMPUTING]
    step[COMPUTING] = most_computing
    left = surprise[others] - information[others, COMPUTING] * most_computing
    step[others] = np.linalg.solve(information[np.ix_(others, others)], left)
    return np.asarray(step)


def _start(told: Sequence[_Told]) -> Array:
    """The prior, with the level of the trial whose processes competed least with each other."""
    walls = [each.value + math.log(max(each.workers, 1)) for each in told if not each.of_cpu]
    computing = [each.value for each in told if each.of_cpu]
    start = PRIOR.copy()
    if walls:
        start[ALONE] = min(walls)
    if computing:
        start[COMPUTING] = min(float(np.median(computing)) - start[ALONE], 0.0)
    return start


def _expected(loading: Loading, told: Sequence[_Told]) -> tuple[Array, Array]:
    """What `loading` predicts for each of `told`, and its gradient."""
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
            wall_s = max(workers, 1) * seen.supply_s
            cpu_s = max(min(seen.fetch_cpu_s, wall_s), 1e-9)  # several threads of one process can count more
            told.append(_Told(workers, math.log(cpu_s), _CPU_ERROR, of_cpu=True))
        return told
    if not workers and not overlaps:
        return [_Told(0, math.log(max(seen.data_wait_s, 1e-9) / samples), _RUN_TO_RUN)]
    step_s = seen.data_wait_s + seen.compute_s + seen.optimizer_s
    if seen.data_wait_s > _WAITING * step_s:
        return [pace(math.log(step_s / samples), 2 * _RUN_TO_RUN if workers else _RUN_TO_RUN)]
    return [pace(math.log(step_s / samples), _RUN_TO_RUN, at_most=True)]
