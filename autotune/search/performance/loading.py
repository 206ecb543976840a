"""How long a sample takes to load: in the training process itself, and from loader processes that share the work.

A loader process computes for a sample's CPU seconds and waits for the rest, for a disk, a network or a lock. Waiting
processes do not stand in one another's way, computing ones share the cores. So W processes deliver a sample every

    max( wall ÷ W^(1 - crowding),  computing · wall ÷ cores left )        seconds,

as a smooth maximum, where `wall` is what one process takes for it, `computing` the share of it that is CPU time, and
the cores left are those that the training step, on a CPU, leaves to as many processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.search.performance.process import Array

ALONE, SHARING, CROWDING, COMPUTING = range(4)
"""Parameters: ln(wall seconds of a sample in the training process), what a loader process takes beyond that for handing
the batch over, how far a doubling of the processes falls short of half the time, ln(share of CPU time)."""
PRIOR = np.array([math.log(1e-3), 0.1, 0.0, 0.0])
PRIOR_DOUBTS = np.array([2.0, 0.35, 0.1, 0.05])
"""A millisecond a sample, give or take a factor of seven; as long as nobody has counted CPU seconds, all of it
computing."""
_WAITS_BELOW = 0.7
"""Share of CPU time below which more processes than cores are worth trying."""
_SHARPNESS = 40.0
"""Norm of the larger of the two limits: sharp, as processes that find a core each do not wait for cores."""


class Beside(NamedTuple):
    """The training step that runs at the same time as loader processes and needs cores too."""

    threads: Array
    """Its threads that compute: on a CPU its intra-op threads, else the one that feeds the device."""
    seconds: Array
    """For a sample, while a batch is ready."""


@dataclass(frozen=True)
class Loading:
    """What is known of loading: the most probable parameters, and their uncertainty."""

    parameters: Array = field(default_factory=PRIOR.copy)
    doubts: Array = field(default_factory=lambda: np.diag(PRIOR_DOUBTS**2))
    """Covariance matrix of the parameters."""
    cores: int = 1
    overlaps: bool = False
    """Whether the training process itself loads while the device computes, as it does with an accelerator."""
    counted: bool = False
    """Whether any trial has counted CPU seconds."""

    @property
    def alone_s(self) -> float:
        """Wall seconds of a sample in the training process."""
        return math.exp(self.parameters[ALONE])

    @property
    def in_process_s(self) -> float:
        """Wall seconds of a sample in a loader process that has a core to itself."""
        return math.exp(self.parameters[ALONE] + self.parameters[SHARING])

    @property
    def alone_doubt(self) -> float:
        """Standard deviation of its logarithm."""
        return math.sqrt(self.doubts[ALONE, ALONE])

    @property
    def computing(self) -> float:
        """Share of a loader process's time in which it computes. In the rest it waits."""
        return math.exp(self.parameters[COMPUTING])

    @property
    def waits(self) -> bool:
        """Whether trials have shown that loading waits, so that more processes than cores can help."""
        return self.counted and self.computing < _WAITS_BELOW

    def hidden(self, workers: Array) -> NDArray[np.bool_]:
        """Whether loading takes place while the previous step computes, so that only the longer of the two counts."""
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
        gradient[:, ALONE] = 1.0
        gradient[:, SHARING] = shared
        gradient[:, CROWDING] = np.where(shared, of_processes * np.log(count), 0.0)
        gradient[:, COMPUTING] = np.where(shared, 1 - of_processes, 0.0)
        return np.where(shared, both / _SHARPNESS, alone), gradient

    def deviation(self, gradient: Array) -> Array:
        """Standard deviation of each prediction with this gradient."""
        return np.asarray(np.sqrt(np.einsum("ij,jk,ik->i", gradient, self.doubts, gradient)))

    def covariance(self, gradient: Array, others: Array) -> Array:
        """Covariance of predictions with these gradients: all of them load the same samples."""
        return np.asarray(gradient @ self.doubts @ others.T)

    def slows_down(self, workers: Array, threads: Array) -> Array:
        """ln(how many times longer a step of so many threads takes on a CPU beside so many loader processes).

        Threads that have to share their cores with others run at about half their speed, and all others wait for them
        at the end of every operator. Processes that wait take no core.
        """
        short = np.clip(threads + workers * self.computing - self.cores, 0.0, 1.0)
        return np.where((workers > 0) & (threads > 1), np.log1p(short**2), 0.0)
