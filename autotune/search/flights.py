"""Trials in flight: one at a time in the caller's own thread, or several, each followed by a thread of its own.

Whoever watches a trial, and all that keeps books, is called from the caller's thread alone.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from autotune.execution import Backend, TrialLost
from autotune.records import TrialEvent, TrialRequest, TrialResult

Ended = TrialResult | TrialLost
OnFlightEvent = Callable[[int, TrialEvent], None]


class Flights(Protocol):
    """Trials that have been begun and not yet ended, each under a number of the caller's."""

    def begin(self, number: int, request: TrialRequest, deadline_s: float) -> None:
        """At most `slots` of the backend's at a time."""

    def next_end(self, on_event: OnFlightEvent) -> tuple[int, Ended]:
        """Wait until one ends; `on_event` is called for the events of all meanwhile. Raises what the backend raises."""


def flights_on(backend: Backend) -> Flights:
    return _Threads(backend) if backend.slots > 1 else _OneByOne(backend)


class _OneByOne:
    """A trial runs while its end is waited for."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._waiting: deque[tuple[int, TrialRequest, float]] = deque()

    def begin(self, number: int, request: TrialRequest, deadline_s: float) -> None:
        self._waiting.append((number, request, deadline_s))

    def next_end(self, on_event: OnFlightEvent) -> tuple[int, Ended]:
        number, request, deadline_s = self._waiting.popleft()
        try:
            result = self._backend.run(request, deadline_s=deadline_s, on_event=lambda event: on_event(number, event))
        except TrialLost as loss:
            return number, loss
        return number, result


class _Threads:
    """They only wait for processes elsewhere; the backend's `close` ends their waiting.

    A thread stays for the next trial: the kernel takes the end of the thread that has started a process for its
    parent's death.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._work: queue.SimpleQueue[tuple[int, TrialRequest, float]] = queue.SimpleQueue()
        self._news: queue.SimpleQueue[tuple[int, TrialEvent | TrialResult | BaseException]] = queue.SimpleQueue()
        self._threads = 0
        self._in_flight = 0

    def begin(self, number: int, request: TrialRequest, deadline_s: float) -> None:
        self._in_flight += 1
        if self._in_flight > self._threads:
            self._threads += 1
            threading.Thread(target=self._serve, daemon=True).start()
        self._work.put((number, request, deadline_s))

    def next_end(self, on_event: OnFlightEvent) -> tuple[int, Ended]:
        while True:
            number, news = self._news.get()
            if isinstance(news, TrialEvent):
                on_event(number, news)
                continue
            self._in_flight -= 1
            if isinstance(news, TrialResult | TrialLost):
                return number, news
            raise news

    def _serve(self) -> None:
        while True:
            self._fly(*self._work.get())

    def _fly(self, number: int, request: TrialRequest, deadline_s: float) -> None:
        end: TrialResult | BaseException
        try:
            end = self._backend.run(
                request, deadline_s=deadline_s, on_event=lambda event: self._news.put((number, event))
            )
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits for this trial
            end = error
        self._news.put((number, end))
