"""How an export's training is timed: by its optimizer steps, the first ones left out."""

from __future__ import annotations

import pytest
import torch
from support.simulation import Clock

from autotune.trial import exported
from autotune.trial.exported import Stopwatch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(exported.time, "perf_counter", clock)
    return clock


def test_a_slow_beginning_does_not_count(clock: Clock) -> None:
    """Twenty seconds for what is done once, half a second a step while it warms up, then a quarter."""
    stopwatch = Stopwatch(10.0, torch.device("cpu"))
    clock.advance(20.0)
    assert not stopwatch.lap()
    for step_s in (0.5, 0.25):
        for _ in range(8 if step_s == 0.5 else 23):
            clock.advance(step_s)
            assert not stopwatch.lap()
    clock.advance(0.25)
    assert stopwatch.lap()
    assert stopwatch.steps_per_s() == pytest.approx(4.0)


def test_one_step_longer_than_all_the_time_is_still_timed(clock: Clock) -> None:
    stopwatch = Stopwatch(1.0, torch.device("cpu"))
    ends = []
    for _ in range(3):
        clock.advance(5.0)
        ends.append(stopwatch.lap())
    assert ends == [False, False, True]
    assert stopwatch.steps_per_s() == pytest.approx(0.2)


def test_whole_epochs_are_timed_with_what_lies_between_them(clock: Clock) -> None:
    """Ten steps of 0.1 s, and half a second before the first of an epoch."""
    stopwatch = Stopwatch(20.0, torch.device("cpu"), epoch_steps=10)
    over, steps = False, 0
    while not over:
        clock.advance(0.6 if steps % 10 == 0 else 0.1)
        steps += 1
        over = stopwatch.lap()
    assert stopwatch.epoch_s() == pytest.approx(1.5)


def test_without_a_whole_epoch_there_is_none_to_time(clock: Clock) -> None:
    stopwatch = Stopwatch(2.0, torch.device("cpu"), epoch_steps=1000)
    while not stopwatch.lap():
        clock.advance(0.1)
    assert stopwatch.epoch_s() is None
    assert stopwatch.steps_per_s() == pytest.approx(10.0)
