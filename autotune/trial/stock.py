"""How many batches the loader's processes are ahead of the training loop.

The queue of workers × prefetch batches is a head start: while it lasts, a loader-bound configuration looks several
times faster than it is. The warm-up has to outlast it, so it has to be seen.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any


class Stock:
    """Counts batches as the loader's processes finish them and as the loop takes them."""

    def __init__(self, *, num_workers: int, prefetch_factor: int) -> None:
        self.capacity = num_workers * prefetch_factor
        self._num_workers = num_workers
        self._finished = multiprocessing.Value("q", 0)
        self._taken = 0

    def counting(self, collate: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`collate`, counted; runs in the loader's processes."""
        return _CountingCollate(collate, self._finished)

    def take(self) -> None:
        self._taken += 1

    @property
    def head_start_spent(self) -> bool:
        """Whether the queue has reached the level that it will keep: full when the loader is the faster, empty when the
        loop is. A level that is still on its way after twenty queues moves too slowly to matter."""
        if self._taken < self.capacity:
            return False
        level = self._finished.value - self._taken
        return level <= 1 or level >= self.capacity - self._num_workers or self._taken >= 20 * self.capacity


class _CountingCollate:
    """A class, not a closure, so that loader processes that are spawned can have it pickled."""

    def __init__(self, collate: Callable[[Any], Any], finished: Any) -> None:
        self._collate = collate
        self._finished = finished

    def __call__(self, samples: Any) -> Any:
        batch = self._collate(samples)
        with self._finished.get_lock():
            self._finished.value += 1
        return batch
