"""Private host memory of a DataLoader's processes, read while training goes on."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterable

import psutil

_AT_MOST = 0.01
"""Largest share of the time for exact readings, in addition to the first. The kernel walks through all pages of a
process: on two idle cores 13 to 22 ms for a loader process of 0.3 to 0.8 GB, 41 to 45 ms for one of 2.4 GB
(2026-11-29)."""


class LoaderMemory:
    """Private memory of some processes (unique set size): what would be free without them.

    A forked process shares most of its pages with the training process, until one of them writes to a page. Only an
    exact reading shows which pages are still shared. Between exact readings, the change of what a process has allocated
    is cheap to read.
    """

    def __init__(self, processes: Iterable[psutil.Process], clock: Callable[[], float] = time.perf_counter) -> None:
        self._processes = list(processes)
        self._clock = clock
        self._next_s = -math.inf
        self._looked: dict[psutil.Process, tuple[int, int]] = {}
        """At the last close look: bytes of its own, and bytes that it had allocated. The oldest look comes first."""

    def read(self) -> int | None:
        """Bytes of all processes that are alive. One without an exact reading yet is assumed to hold as much as the
        others. None if there are no processes, or the system does not say."""
        allocated: dict[psutil.Process, int] = {}
        for process in self._processes:
            with contextlib.suppress(psutil.Error):
                memory = process.memory_info()
                allocated[process] = memory.rss - getattr(memory, "shared", 0)
        self._processes = list(allocated)
        if allocated and self._clock() >= self._next_s:
            self._look_closely(allocated)
        known = [own + allocated[each] - then for each, (own, then) in self._looked.items() if each in allocated]
        return round(statistics.fmean(known) * len(allocated)) if known else None

    def _look_closely(self, allocated: dict[psutil.Process, int]) -> None:
        """Read one process exactly: one without a reading, else the one whose reading is the oldest."""
        oldest = (each for each in self._looked if each in allocated)
        chosen = next((each for each in allocated if each not in self._looked), None) or next(oldest)
        began_s = self._clock()
        self._looked.pop(chosen, None)
        with contextlib.suppress(psutil.Error):
            self._looked[chosen] = (chosen.memory_full_info().uss, allocated[chosen])
        ended_s = self._clock()
        self._next_s = ended_s + (ended_s - began_s) / _AT_MOST
