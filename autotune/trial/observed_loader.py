"""Batches for the loop, epoch after epoch, with a log of when each was loaded and taken.

Each loader process records when it finishes a batch, in memory that it shares with the loop's process. There are no
locks: a loader process may be killed at any moment.
"""

from __future__ import annotations

import itertools
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torch.utils.data.distributed import DistributedSampler

from autotune.config import TrainConfig
from autotune.measure import LoaderLog

_UNTOUCHED = 4096
"""How many batches of one process are kept until they are read."""
_DIES_WITHIN_S = 2.0
"""Time that a loader process takes to end after its sockets have closed."""
_READ_EVERY = 256
"""Read after so many batches taken, long before any process could have finished more than are kept."""


class ObservedLoader:
    """Observes the DataLoader of a trial: call `observing` before the loader is built, `batches` afterwards."""

    def __init__(self, config: TrainConfig) -> None:
        prefetch = (config.prefetch_factor or 2) if config.num_workers else 0
        self._log = LoaderLog(workers=config.num_workers, prefetch=prefetch, epoch_batches=None)
        self._finishes = Finishes(config.num_workers)

    def observing(self, collate: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`collate`, extended to record when it ends; runs in the loader's processes."""
        return _ObservedCollate(collate, self._finishes)

    def batches(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """Batches, epoch after epoch; each epoch begins as in a user's loop.

        Raises ValueError if an epoch has no batch.
        """
        if not isinstance(loader.dataset, IterableDataset):
            self._log.epoch_batches = len(loader)
        asked_s, cpu_s = time.monotonic(), time.process_time()
        for epoch in itertools.count():
            if isinstance(loader.sampler, DistributedSampler):
                loader.sampler.set_epoch(epoch)
            self.read()
            began_s = time.monotonic()
            batches = iter(loader)
            self._log.begin_epoch(time.monotonic(), time.monotonic() - began_s)
            empty = True
            for batch in _telling_of_deaths(batches):
                empty = False
                own_cpu_s = None if self._log.workers else time.process_time() - cpu_s
                self._log.take(asked_s, time.monotonic(), own_cpu_s)
                if self._log.taken % _READ_EVERY == 0:
                    self.read()
                yield batch
                asked_s, cpu_s = time.monotonic(), time.process_time()
            if empty:
                raise ValueError("the data set has too few samples for a batch of this size")
            self._log.end_epoch()

    def read(self) -> LoaderLog:
        """The log, with everything that loader processes have recorded so far."""
        for worker in range(self._log.workers):
            for at_s, cpu_s in self._finishes.take(worker):
                self._log.finish(worker, at_s, cpu_s)
        return self._log


def _telling_of_deaths(batches: Iterator[Any]) -> Iterator[Any]:
    """`batches`. If one cannot be fetched because a loader process has ended, raises an error that says how it ended.

    PyTorch raises one of several errors, depending on which of its threads and sockets notices first.
    """
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except Exception as error:
            death = _death_behind(error, getattr(batches, "_workers", ()))
            if death is None:
                raise
            raise RuntimeError(death) from error
        yield batch


def _death_behind(error: Exception, workers: Sequence[Any]) -> str | None:
    """How the loader process ended that `error` is about, in PyTorch's words; None if `error` is about something
    else."""
    if not _tells_of_a_death(error):
        return None
    ends_s = time.monotonic() + _DIES_WITHIN_S
    while not (dead := [worker for worker in workers if worker.exitcode is not None]) and time.monotonic() < ends_s:
        time.sleep(0.01)
    if not dead:
        return None
    first = max(dead, key=lambda worker: worker.exitcode < 0)  # others may have ended normally, after it
    if first.exitcode < 0:
        return f"DataLoader worker (pid {first.pid}) is killed by signal: {signal.strsignal(-first.exitcode)}."
    raised = ", as after a KeyboardInterrupt in the data set" if first.exitcode == 0 else ""
    return f"DataLoader worker (pid {first.pid}) exited unexpectedly with exit code {first.exitcode}{raised}"


def _tells_of_a_death(error: Exception) -> bool:
    if isinstance(error, RuntimeError):
        return str(error).startswith("DataLoader worker") and "killed by signal" not in str(error)
    if not isinstance(error, ConnectionError | EOFError | FileNotFoundError):
        return False
    raised_here = any("resource_sharer" in frame.filename for frame in traceback.extract_tb(error.__traceback__))
    return raised_here or ("resource_sharer" in str(error) and "pin memory thread" in str(error))


class Finishes:
    """For each loader process: when it finished its last batches, and its CPU seconds at these times."""

    def __init__(self, workers: int) -> None:
        self._counts = multiprocessing.RawArray("q", max(workers, 1))
        self._entries = multiprocessing.RawArray("d", max(workers, 1) * 2 * _UNTOUCHED)
        self._read = [0] * workers

    def note(self, worker: int) -> None:
        """Record that a batch has been loaded; called in process `worker`."""
        count = self._counts[worker]
        place = 2 * (worker * _UNTOUCHED + count % _UNTOUCHED)
        self._entries[place : place + 2] = (time.monotonic(), time.process_time())
        self._counts[worker] = count + 1  # last, so that a reader finds a complete entry

    def take(self, worker: int) -> Iterator[tuple[float, float]]:
        """The entries that have not been read yet, in order."""
        while self._read[worker] < self._counts[worker]:
            place = 2 * (worker * _UNTOUCHED + self._read[worker] % _UNTOUCHED)
            self._read[worker] += 1
            yield self._entries[place], self._entries[place + 1]


class _ObservedCollate:
    """A class, not a closure, so that it can be pickled for spawned loader processes."""

    def __init__(self, collate: Callable[[Any], Any], finishes: Finishes) -> None:
        self._collate = collate
        self._finishes = finishes

    def __call__(self, samples: Any) -> Any:
        batch = self._collate(samples)
        worker = get_worker_info()
        if worker is not None:
            self._finishes.note(worker.id)
        return batch
