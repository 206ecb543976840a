"""CPU cores that processes share, and a clock that goes from one event to the next.

Each computation asks for a number of cores. If they ask for more than there are in total, each gets the same share of
what it asked for. So all computations progress at the same speed, and one counter of progress orders their ends.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

Event = Callable[[], None]


class Burst(NamedTuple):
    """Work of other programs."""

    from_s: float
    to_s: float
    cores: float
    seen: bool


class Cores:
    def __init__(self, count: int, began_s: float, bursts: Iterable[Burst] = ()) -> None:
        """`bursts`: in the order of time, none within another."""
        self.now_s = began_s
        self.own_s = self.loader_s = self.outside_s = 0.0
        """Core seconds that these processes have computed, the loader's of them, and those that the counters saw others
        compute."""
        self._count = count
        self._progress = 0.0
        self._asked = self._asked_by_loader = 0.0
        self._rate = 1.0
        self._numbers = 0
        self._computing: list[tuple[float, int, float, bool, Event]] = []
        self._waiting: list[tuple[float, int, Event]] = []
        self._bursts = iter(bursts)
        self._burst = Burst(-math.inf, -math.inf, 0.0, False)
        self._outside = 0.0
        self._change_s = -math.inf
        self._change_outside()

    def compute(self, seconds: float, cores: float, ended: Event, *, loads: bool = False) -> None:
        """Call `ended` after `seconds` of computation on `cores` cores have been done. `loads`: by a loader process,
        not by training."""
        self._numbers += 1
        heapq.heappush(self._computing, (self._progress + seconds, self._numbers, cores, loads, ended))
        self._ask(cores, loads)

    def wait(self, seconds: float, ended: Event) -> None:
        self._numbers += 1
        heapq.heappush(self._waiting, (self.now_s + seconds, self._numbers, ended))

    def occupy(self, seconds: float, cores: float) -> None:
        """Compute, and let the time pass until that is done."""
        if seconds <= 0:
            return
        done: list[float] = []
        self.compute(seconds, cores, lambda: done.append(self.now_s))
        while not done:
            self.step()

    def run_until(self, to_s: float) -> None:
        """All events up to `to_s`, which is the time afterwards."""
        while self._next_s() <= to_s:
            self.step()
        self._advance(to_s)

    def step(self) -> None:
        """The next event."""
        computed_s = self.now_s + (self._computing[0][0] - self._progress) / self._rate if self._computing else math.inf
        waited_s = self._waiting[0][0] if self._waiting else math.inf
        if self._change_s <= computed_s and self._change_s <= waited_s:
            self._advance(self._change_s)
            self._change_outside()
        elif computed_s <= waited_s:
            self._advance(computed_s)
            progress, _, cores, loads, ended = heapq.heappop(self._computing)
            self._progress = progress
            self._ask(-cores, loads)
            ended()
        else:
            self._advance(waited_s)
            heapq.heappop(self._waiting)[2]()

    def _next_s(self) -> float:
        computed_s = self.now_s + (self._computing[0][0] - self._progress) / self._rate if self._computing else math.inf
        return min(computed_s, self._waiting[0][0] if self._waiting else math.inf, self._change_s)

    def _advance(self, to_s: float) -> None:
        seconds = to_s - self.now_s
        if seconds > 0:
            progress = seconds * self._rate
            self._progress += progress
            self.own_s += progress * self._asked
            self.loader_s += progress * self._asked_by_loader
            if self._outside and self._burst.seen:
                self.outside_s += progress * self._outside
            self.now_s = to_s

    def _ask(self, cores: float, loads: bool) -> None:
        """Ask for so many more cores, or for fewer if the number is negative."""
        self._asked += cores
        self._asked_by_loader += cores if loads else 0.0
        self._set_rate()

    def _set_rate(self) -> None:
        asked = self._asked + self._outside
        self._rate = 1.0 if asked <= self._count else self._count / asked

    def _change_outside(self) -> None:
        """Begin or end a burst that is due now, or look for the first one."""
        while self._burst.to_s <= self.now_s:
            self._burst = next(self._bursts, Burst(math.inf, math.inf, 0.0, False))
        under_way = self._burst.from_s <= self.now_s
        self._outside = self._burst.cores if under_way else 0.0
        self._change_s = self._burst.to_s if under_way else self._burst.from_s
        self._set_rate()
