"""A loader whose batches are there: the same few, again and again. What trains on them shows the step's side alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from autotune.measure.loader_log import LoaderLog

HANDFUL, FEWEST = 4, 2
"""Batches that a step is measured on; where they are loaded one after the other, and that takes long."""
LONG_S = 0.5


class ReadyBatches:
    """Is the loader of a `Measurement`; nobody ever waits for it."""

    def __init__(
        self, batches: Sequence[Any], clock: Callable[[], float], anew: Callable[[Any], Any] = lambda batch: batch
    ) -> None:
        """`anew`: a batch as a loader would hand it over once more, whatever training did to it the last time."""
        self._batches = batches
        self._clock = clock
        self._anew = anew
        self._log = LoaderLog(workers=0, prefetch=0, epoch_batches=None)

    def __iter__(self) -> Iterator[Any]:
        self._log.begin_epoch(self._clock())
        for batch in itertools.cycle(self._batches):
            asked_s = self._clock()
            again = self._anew(batch)
            self._log.take(asked_s, self._clock())
            yield again

    def read(self) -> LoaderLog:
        return self._log
