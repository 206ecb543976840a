"""A loader with a few ready batches that it repeats: training on them measures the step alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from autotune.measure.loader_log import LoaderLog

HANDFUL, FEWEST = 4, 2
"""Number of batches that a step is measured on; the second if they are loaded one after another, which takes long."""
LONG_S = 0.5


class ReadyBatches:
    """The loader of a `Measurement` that never has to wait for a batch."""

    def __init__(
        self, batches: Sequence[Any], clock: Callable[[], float], anew: Callable[[Any], Any] = lambda batch: batch
    ) -> None:
        """`anew` restores a batch as a loader would deliver it, after training may have changed it."""
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
