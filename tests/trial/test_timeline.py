"""Where a block's time goes: on the host's clock, and by the events of a device that is made of numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from support.simulation import Clock

from autotune.records import StepPhase
from autotune.trial.timeline import DeviceTimeline, HostTimeline, make_timeline

CUDA = torch.device("cuda", 0)
STEP: tuple[tuple[StepPhase, float], ...] = (
    ("data_wait", 0.5),
    ("copy", 0.25),
    ("forward_backward", 2.0),
    ("optimizer", 0.125),
)


@dataclass
class Device:
    """Its queue is empty whenever it is asked: an event happens when it is recorded, at `now_s`."""

    now_s: float = 100.0
    events: list[Any] = field(default_factory=list)

    def event_class(self) -> type:
        device = self

        class Event:
            def __init__(self, *, enable_timing: bool) -> None:
                assert enable_timing
                self.recorded: list[float] = []
                device.events.append(self)

            def record(self) -> None:
                self.recorded.append(device.now_s)

            def elapsed_time(self, end: Event) -> float:
                return 1000.0 * (end.recorded[-1] - self.recorded[-1])

        return Event


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setattr(torch.cuda, "Event", device.event_class())
    return device


def run_on_host(timeline: HostTimeline, clock: Clock, steps: int) -> None:
    for _ in range(steps):
        for phase, seconds in STEP:
            clock.advance(seconds)
            timeline.mark(phase)


def run_on_device(timeline: DeviceTimeline, device: Device, steps: int) -> None:
    for _ in range(steps):
        for phase, seconds in STEP:
            device.now_s += seconds
            timeline.mark(phase)


def test_an_accelerator_has_its_own_clock_and_others_the_hosts() -> None:
    assert isinstance(make_timeline(CUDA, Clock()), DeviceTimeline)
    assert isinstance(make_timeline(torch.device("xpu"), Clock()), DeviceTimeline)
    assert isinstance(make_timeline(torch.device("cpu"), Clock()), HostTimeline)
    assert isinstance(make_timeline(torch.device("mps"), Clock()), HostTimeline)


def test_on_the_host_each_phase_is_what_came_since_the_last_mark() -> None:
    clock = Clock()
    timeline = HostTimeline(clock)
    timeline.restart()
    run_on_host(timeline, clock, 3)
    assert timeline.phases(3 * 2.875) == {phase: pytest.approx(3 * seconds) for phase, seconds in STEP}


def test_on_the_host_what_came_before_the_block_is_forgotten() -> None:
    clock = Clock()
    timeline = HostTimeline(clock)
    clock.advance(60.0)
    run_on_host(timeline, clock, 5)
    clock.advance(60.0)
    timeline.restart()
    assert timeline.phases(1.0) == {}
    run_on_host(timeline, clock, 1)
    assert timeline.phases(2.875) == {phase: pytest.approx(seconds) for phase, seconds in STEP}


@pytest.mark.parametrize("seconds", [2.875, 3.0, 1.0])
def test_the_phases_share_the_block_that_they_are_told(seconds: float) -> None:
    """What the block takes beyond its marks belongs to all in proportion."""
    clock = Clock()
    timeline = HostTimeline(clock)
    run_on_host(timeline, clock, 1)
    phases = timeline.phases(seconds)
    assert sum(phases.values()) == pytest.approx(seconds)
    assert phases["copy"] == pytest.approx(seconds * 0.25 / 2.875)


def test_micro_batches_add_to_the_same_phases() -> None:
    clock = Clock()
    timeline = HostTimeline(clock)
    for phase, seconds in (*STEP[:3], *STEP[:3], *STEP):
        clock.advance(seconds)
        timeline.mark(phase)
    assert timeline.phases(8.375) == {
        "data_wait": pytest.approx(1.5),
        "copy": pytest.approx(0.75),
        "forward_backward": pytest.approx(6.0),
        "optimizer": pytest.approx(0.125),
    }


def test_on_a_device_the_phases_are_the_times_between_its_events(device: Device) -> None:
    timeline = DeviceTimeline(CUDA)
    timeline.restart()
    run_on_device(timeline, device, 3)
    assert timeline.phases(3 * 2.875) == {phase: pytest.approx(3 * seconds) for phase, seconds in STEP}


def test_on_a_device_the_phases_add_up_to_what_the_host_measured(device: Device) -> None:
    timeline = DeviceTimeline(CUDA)
    timeline.restart()
    run_on_device(timeline, device, 2)
    phases = timeline.phases(5.8)
    assert sum(phases.values()) == pytest.approx(5.8)
    assert phases["optimizer"] == pytest.approx(5.8 * 0.125 / 2.875)


def test_micro_batches_on_a_device_add_to_the_same_phases(device: Device) -> None:
    timeline = DeviceTimeline(CUDA)
    timeline.restart()
    for phase, seconds in (*STEP[:3], *STEP):
        device.now_s += seconds
        timeline.mark(phase)
    assert timeline.phases(5.625)["data_wait"] == pytest.approx(1.0)
    assert timeline.phases(5.625)["optimizer"] == pytest.approx(0.125)


def test_waiting_that_is_hidden_behind_work_is_no_waiting(device: Device) -> None:
    """Two marks with no work of the device between them."""
    timeline = DeviceTimeline(CUDA)
    timeline.restart()
    timeline.mark("data_wait")
    device.now_s += 1.0
    timeline.mark("forward_backward")
    assert timeline.phases(1.0) == {"data_wait": 0.0, "forward_backward": 1.0}


def test_events_are_used_again_block_after_block(device: Device) -> None:
    timeline = DeviceTimeline(CUDA)
    for steps in (3, 1, 2, 3):
        device.now_s += 60.0
        timeline.restart()
        run_on_device(timeline, device, steps)
        expected = {phase: pytest.approx(steps * seconds) for phase, seconds in STEP}
        assert timeline.phases(steps * 2.875) == expected, "of this block's events, whatever a longer one left behind"
    assert len(device.events) == 1 + 3 * len(STEP)


def test_a_device_without_any_marks_has_no_phases(device: Device) -> None:
    timeline = DeviceTimeline(CUDA)
    timeline.restart()
    assert timeline.phases(1.0) == {}


def test_steps_before_the_first_block_are_no_part_of_it_on_a_device_either(device: Device) -> None:
    timeline = DeviceTimeline(CUDA)
    run_on_device(timeline, device, 2)
    timeline.restart()
    run_on_device(timeline, device, 1)
    assert timeline.phases(2.875) == {phase: pytest.approx(seconds) for phase, seconds in STEP}


def test_steps_before_the_first_block_take_no_events(device: Device) -> None:
    timeline = DeviceTimeline(CUDA)
    run_on_device(timeline, device, 2)
    assert len(device.events) <= 1
