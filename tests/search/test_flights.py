"""Trials in flight: who is called from which thread, and what becomes of a trial whose place is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.facts import cpu_facts

from autotune.config import TrainConfig
from autotune.errors import EnvironmentFailure
from autotune.execution import OnEvent, TrialLost
from autotune.records import Facts, TrialEvent, TrialRequest, TrialResult, TrialStatus
from autotune.search.flights import flights_on

REQUEST = TrialRequest(config=TrainConfig(), seed=0, time_limit_s=1.0)


def result_of(request: TrialRequest) -> TrialResult:
    return TrialResult(config=request.config, status=TrialStatus.OK, seed=request.seed, wall_s=1.0)


class Place:
    """A backend whose trials do as they are told."""

    remarks: tuple[str, ...] = ()

    def __init__(self, slots: int, deed: Callable[[TrialRequest, OnEvent], None]) -> None:
        self.slots = slots
        self._deed = deed

    def facts(self, deadline_s: float) -> Facts:
        return cpu_facts()

    def run(self, request: TrialRequest, *, deadline_s: float, on_event: OnEvent) -> TrialResult:
        self._deed(request, on_event)
        return result_of(request)

    def close(self) -> None:
        pass


def seeded(seed: int) -> TrialRequest:
    return REQUEST.model_copy(update={"seed": seed})


def test_several_are_inside_run_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=10)
    flights = flights_on(Place(3, lambda _request, _on_event: together.wait() and None))
    for number in range(3):
        flights.begin(number, seeded(number), 10.0)
    ended = dict(flights.next_end(lambda _number, _event: None) for _ in range(3))
    assert {number: end.seed for number, end in ended.items() if isinstance(end, TrialResult)} == {0: 0, 1: 1, 2: 2}


@pytest.mark.parametrize("slots", [1, 3])
def test_events_come_in_the_callers_thread_each_with_its_trial(slots: int) -> None:
    seen: list[tuple[int, Any, threading.Thread]] = []

    def deed(request: TrialRequest, on_event: OnEvent) -> None:
        for number in range(4):
            on_event(TrialEvent(event="block", at_s=float(number), payload={"seed": request.seed}))

    flights = flights_on(Place(slots, deed))
    for number in range(slots):
        flights.begin(number, seeded(number), 10.0)
    for _ in range(slots):
        flights.next_end(lambda number, event: seen.append((number, event, threading.current_thread())))
    assert {thread for _, _, thread in seen} == {threading.current_thread()}
    for trial in range(slots):
        assert [event.at_s for number, event, _ in seen if number == trial] == [0.0, 1.0, 2.0, 3.0]
        assert {event.payload["seed"] for number, event, _ in seen if number == trial} == {trial}


@pytest.mark.parametrize("slots", [1, 2])
def test_a_lost_place_is_an_end_and_an_error_is_raised(slots: int) -> None:
    def deed(request: TrialRequest, _on_event: OnEvent) -> None:
        raise TrialLost("node 3 died") if request.seed == 0 else EnvironmentFailure("the disk is full")

    flights = flights_on(Place(slots, deed))
    flights.begin(7, seeded(0), 10.0)
    number, end = flights.next_end(lambda _number, _event: None)
    assert number == 7
    assert isinstance(end, TrialLost)
    flights.begin(8, seeded(1), 10.0)
    with pytest.raises(EnvironmentFailure, match="disk is full"):
        flights.next_end(lambda _number, _event: None)
