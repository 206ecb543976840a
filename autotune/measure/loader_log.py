"""What a DataLoader did: when each batch was dispatched, loaded and taken.

Recorded are the times at which the loop takes batches and at which loader processes finish them. The rest follows from
how PyTorch's DataLoader works (persistent workers, batches in order): an epoch begins by dispatching `workers` ×
`prefetch` batches, batch k to worker k mod `workers`. Each time a batch is taken, the batch `workers` × `prefetch`
later is dispatched, as long as the epoch has more. A worker loads its batches one after another.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from autotune.records import SlowBatches


class Fetch(NamedTuple):
    """One batch in one loader process."""

    start_s: float
    """When it was dispatched, or when its process had finished the batch before, whichever was later."""
    finish_s: float
    cpu_s: float | None
    """CPU seconds of its process meanwhile; None if unknown."""
    saturated: bool
    """Whether its process started it without a pause: the queue was not full."""
    first: bool
    """Whether it was the first of its process; its time then includes the start of the process."""

    @property
    def seconds(self) -> float:
        return self.finish_s - self.start_s


class Take(NamedTuple):
    """One batch that the loop took."""

    asked_s: float
    """For the first of an epoch: when the loop asked for it, before the epoch had begun."""
    at_s: float
    cpu_s: float | None
    """CPU seconds of a loader without processes meanwhile."""

    @property
    def waited_s(self) -> float:
        return self.at_s - self.asked_s


@dataclass
class Epoch:
    """One iteration over the loader."""

    began_s: float
    """When its first batches were dispatched."""
    restart_s: float
    """Seconds that `iter(loader)` took before that."""
    first_take: int
    """Index of its first batch among the batches of all epochs."""
    before: tuple[int, ...]
    """Batches that each worker had finished in earlier epochs."""
    ended: bool = False


class LoaderLog:
    """The code that runs the loader fills it: events of each kind in order of time, and all batches that workers finish
    in an epoch before the next epoch begins."""

    def __init__(self, *, workers: int, prefetch: int, epoch_batches: int | None) -> None:
        """`prefetch`: batches for each worker. `epoch_batches`: micro-batches of an epoch; None if the data set has no
        length (it is then known after the first epoch)."""
        self.workers = workers
        self.prefetch = prefetch
        self.capacity = workers * prefetch
        self.epoch_batches = epoch_batches
        self.is_stream = epoch_batches is None
        """Whether nobody knows what each process still has to load."""
        self.epochs: list[Epoch] = []
        self.takes: list[Take] = []
        self.fetches: list[list[Fetch]] = [[] for _ in range(workers)]
        self.earlier = SlowBatches()
        """What earlier processes have seen of slow batches."""
        self._cpu_s: list[float | None] = [None] * workers
        self._first_takes: list[int] = []

    def begin_epoch(self, at_s: float, restart_s: float = 0.0) -> None:
        """Record that an epoch begins: its first batches are dispatched at `at_s`, after `iter(loader)` took
        `restart_s` seconds."""
        self.epochs.append(Epoch(at_s, restart_s, self.taken, before=tuple(map(len, self.fetches))))
        self._first_takes.append(self.taken)

    def take(self, asked_s: float, at_s: float, cpu_s: float | None = None) -> None:
        self.takes.append(Take(asked_s, at_s, cpu_s))

    def end_epoch(self) -> None:
        """Record that the loader's epoch is over."""
        epoch = self.epochs[-1]
        epoch.ended = True
        if self.epoch_batches is None:
            self.epoch_batches = len(self.takes) - epoch.first_take

    def finish(self, worker: int, at_s: float, cpu_s: float | None = None) -> None:
        """Record that `worker` has finished its next batch; `cpu_s`: CPU seconds of its process since its start."""
        fetches = self.fetches[worker]
        before_s = fetches[-1].finish_s if fetches else -math.inf
        dispatched_s = self._dispatched_s(self.epochs[-1], self._next_of(worker))
        if math.isinf(dispatched_s):  # an iterable data set: the part of another worker has ended
            dispatched_s = max(before_s, self.epochs[-1].began_s)
        last_cpu_s, self._cpu_s[worker] = self._cpu_s[worker], cpu_s
        fetch = Fetch(
            start_s=min(max(dispatched_s, before_s), at_s),
            finish_s=at_s,
            cpu_s=None if cpu_s is None or last_cpu_s is None else cpu_s - last_cpu_s,
            saturated=before_s >= dispatched_s,
            first=not fetches,
        )
        fetches.append(fetch)

    @property
    def now_s(self) -> float:
        """The time of the last known event."""
        last = [fetches[-1].finish_s for fetches in self.fetches if fetches]
        return max([*last, *(take.at_s for take in self.takes[-1:])], default=-math.inf)

    @property
    def taken(self) -> int:
        """Batches taken in all epochs."""
        return len(self.takes)

    @property
    def finished(self) -> int:
        """Batches that workers have loaded in all epochs."""
        return sum(map(len, self.fetches))

    @property
    def level(self) -> int:
        """Batches that are loaded but not taken."""
        return self.finished - self.taken if self.workers else 0

    @property
    def epochs_ended(self) -> int:
        return sum(epoch.ended for epoch in self.epochs)

    @property
    def position(self) -> int:
        """Batches taken in the present epoch; 0 at an edge."""
        if not self.epochs or self.epochs[-1].ended:
            return 0
        position = self.taken - self.epochs[-1].first_take
        return 0 if position == self.epoch_batches else position

    @property
    def left(self) -> int | None:
        """Batches left in the present epoch; None if unknown, 0 at an edge."""
        if self.epoch_batches is None:
            return None
        return self.epoch_batches - self.position if self.position else 0

    def epoch_began_s(self, at_s: float) -> float:
        """When the epoch at the time `at_s` began; before the first epoch: when the first began."""
        return max((epoch.began_s for epoch in self.epochs if epoch.began_s <= at_s), default=-math.inf)

    def since(self, at_s: float, until_s: float = math.inf) -> Iterator[Fetch]:
        """Fetches that ended after `at_s` and began before `until_s`, grouped by worker."""
        for fetches in self.fetches:
            start = bisect.bisect_right(fetches, at_s, key=lambda fetch: fetch.finish_s)
            for position in range(start, len(fetches)):
                if fetches[position].start_s >= until_s:
                    break
                yield fetches[position]

    def produced(self, from_s: float, to_s: float, usual_s: Callable[[float], float]) -> float:
        """Batches that the workers loaded between two times, including parts of batches: a batch that was half loaded
        at `from_s` counts half. `usual_s`: the usual total duration of a fetch that has not ended after so many
        seconds."""
        done = math.fsum(_share(fetch.start_s, fetch.finish_s, from_s, to_s) for fetch in self.since(from_s, to_s))
        under_way = (start_s for start_s in self.under_way() if start_s < to_s)
        return done + math.fsum((to_s - max(start_s, from_s)) / usual_s(to_s - start_s) for start_s in under_way)

    def was_loaded(self, take: int) -> bool:
        """Whether a batch was already loaded when the loop asked for it. Call this after its loading is recorded."""
        if not self.workers:
            return False
        epoch = self.epochs[bisect.bisect_right(self._first_takes, take) - 1]
        turn, worker = divmod(take - epoch.first_take, self.workers)
        fetches = self.fetches[worker]
        position = epoch.before[worker] + turn
        return position < len(fetches) and fetches[position].finish_s <= self.takes[take].asked_s

    def position_after(self, take: int) -> int:
        """Batches taken in the present epoch at the time when `take` batches had been taken in total."""
        return take - self._first_takes[bisect.bisect_left(self._first_takes, take) - 1] if take else 0

    def edges_between(self, first: int, last: int) -> int:
        """Number of epochs that began with takes `first` (inclusive) to `last` (exclusive), without the very first
        epoch."""
        begun = [bisect.bisect_left(self._first_takes, max(take, 1)) for take in (first, last)]
        return begun[1] - begun[0]

    def under_way(self) -> Iterator[float]:
        """For each worker that is loading a batch: when it started."""
        if not self.epochs or self.epochs[-1].ended:
            return
        for worker, fetches in enumerate(self.fetches):
            dispatched_s = self._dispatched_s(self.epochs[-1], self._next_of(worker))
            if math.isfinite(dispatched_s):
                yield max(dispatched_s, fetches[-1].finish_s if fetches else dispatched_s)

    def _next_of(self, worker: int) -> int:
        """Index in its epoch of the batch that `worker` finishes next."""
        return worker + self.workers * (len(self.fetches[worker]) - self.epochs[-1].before[worker])

    def _dispatched_s(self, epoch: Epoch, index: int) -> float:
        """When batch `index` of `epoch` was dispatched; infinity if it was not."""
        if self.epoch_batches is not None and index >= self.epoch_batches:
            return math.inf
        if index < self.capacity:
            return epoch.began_s
        taken = epoch.first_take + index - self.capacity
        return self.takes[taken].at_s if taken < len(self.takes) else math.inf


def _share(start_s: float, finish_s: float, from_s: float, to_s: float) -> float:
    """The share of [start, finish] that is inside [from, to]; a point inside counts as 1."""
    if finish_s <= start_s:
        return float(from_s < finish_s <= to_s)
    return max(min(finish_s, to_s) - max(start_s, from_s), 0.0) / (finish_s - start_s)
