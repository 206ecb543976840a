"""The loader alone: how long one process takes for a batch, and what all processes deliver together."""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autotune.measure import prefetch_queue
from autotune.measure.loader_log import Fetch, LoaderLog
from autotune.measure.slow_batches import as_often_as_they_come, known

_FIRST_FETCHES, _LAST_FETCHES = 16, 512
"""Numbers of fetches: those that fill the queue in the beginning, and the latest ones that the mean uses."""


_COLD = 1.3
"""Factor on the time of a batch from which on the first epoch counts as cold."""


@dataclass(frozen=True, kw_only=True)
class Loading:
    """What is known about the loader alone, in seconds for each micro-batch."""

    fetch_s: NDArray[np.float64]
    """Durations of fetches in one process."""
    cpu_s: float | None
    pace_s: float
    """Seconds for each batch of all processes together while the queue is not full."""
    seen: int
    """Number of batches behind these values."""
    cpu_error: float = 0.0
    """Relative standard error of `cpu_s`."""

    @functools.cached_property
    def mean_s(self) -> float:
        return float(self.fetch_s.mean())

    @property
    def relative_error(self) -> float:
        return self.relative_error_of(self.seen)

    def relative_error_of(self, batches: float) -> float:
        """Relative standard error of the mean of so many fetches, from their spread."""
        if len(self.fetch_s) < 2:
            return math.inf
        return float(self.fetch_s.std(ddof=1)) / self.mean_s / math.sqrt(max(batches, 1.0)) if self.mean_s else 0.0

    def usual_s(self, lasted_s: float) -> float:
        """Expected total duration of a fetch that has not ended after `lasted_s`: the harmonic mean of those that took
        longer. The finished part of it is then right on average, because a long fetch is more likely to be in
        progress."""
        longer, inverse_sums = self._longer
        count = len(longer) - int(np.searchsorted(longer, lasted_s, side="right"))
        return count / float(inverse_sums[count - 1]) if count else lasted_s

    @functools.cached_property
    def _longer(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The sorted fetches, and the sums of the inverses of the longest, the two longest, and so on."""
        fetch_s = np.sort(self.fetch_s)
        return fetch_s, np.cumsum(1 / np.maximum(fetch_s[::-1], 1e-12))


def loading(log: LoaderLog, since_s: float) -> Loading | None:
    """The rates from the fetches since `since_s`, if there are enough; None before anything has been loaded.

    Fetches made while the queue was not full are preferred: every process is busy then, as when the loader is the
    limit.
    """
    if not log.workers:
        takes = [take for take in log.takes if take.asked_s >= since_s] or log.takes
        fetches = [Fetch(take.asked_s, take.at_s, take.cpu_s, True, False) for take in takes]
    else:
        every = _every(log)
        fetches = _chosen(every, since_s, fewest=max(log.workers, 3))
    if not fetches:
        return None
    seconds, counted = np.array([fetch.seconds for fetch in fetches[-_LAST_FETCHES:]]), fetches
    if log.workers:
        counted = [fetch for fetch in every if not fetch.first]  # the CPU time is the same, with or without waiting
        began_s = log.epoch_began_s(since_s)  # files of earlier epochs may have been cold
        started = np.array([fetch.seconds for fetch in every if not fetch.first and fetch.finish_s > began_s])
        seconds = as_often_as_they_come(seconds, started, known(log, since_s), _LAST_FETCHES)
    cpu = np.array([fetch.cpu_s for fetch in counted[-_LAST_FETCHES:] if fetch.cpu_s is not None])
    pace_s = prefetch_queue.pace(workers=log.workers, prefetch=log.prefetch, fetch_s=seconds)
    return Loading(
        fetch_s=seconds,
        cpu_s=float(cpu.mean()) if len(cpu) else None,
        pace_s=pace_s,
        seen=min(len(counted), _LAST_FETCHES) if log.workers else len(seconds),
        cpu_error=_error_of_mean(cpu),
    )


def first_was_cold(log: LoaderLog) -> bool:
    """Whether batches took clearly longer to load in the first epoch than after it."""
    if len(log.epochs) < 2:
        return False
    edge_s = log.epochs[1].began_s
    started = [fetch for fetches in log.fetches for fetch in fetches if not fetch.first]
    first = [fetch.seconds for fetch in started if fetch.finish_s <= edge_s]
    later = [fetch.seconds for fetch in started if fetch.finish_s > edge_s]
    return bool(first and later) and statistics.median(first) > _COLD * statistics.median(later)


def _error_of_mean(values: NDArray[np.float64]) -> float:
    """Relative standard error of the mean; 0 if it cannot be known."""
    return (
        float(values.std(ddof=1) / values.mean()) / math.sqrt(len(values)) if len(values) > 1 and values.any() else 0.0
    )


def _every(log: LoaderLog) -> list[Fetch]:
    of_each = (one[:_FIRST_FETCHES] + one[_FIRST_FETCHES:][-_LAST_FETCHES:] for one in log.fetches)
    return sorted(itertools.chain.from_iterable(of_each), key=lambda fetch: fetch.finish_s)


def _chosen(every: list[Fetch], since_s: float, *, fewest: int) -> list[Fetch]:
    started = [fetch for fetch in every if not fetch.first]
    saturated = [fetch for fetch in started if fetch.saturated]
    lately = [fetch for fetch in saturated if fetch.start_s >= since_s]
    for choice in (lately, saturated, started):
        if len(choice) >= fewest:
            return choice
    return started or every
