"""Where the time of a block goes: a timeline cut at the end of each phase, so that the phases add up by construction.

On the CPU the cuts are readings of the host's clock. On an accelerator they are events in its queue, which cost a few
microseconds and wait for nothing. The time between the end of one step's work and the start of the next is the device's
idle time: the part of the host's waiting for data that no work hides.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Protocol

import torch

from autotune.records import StepPhase

_WITH_TIMED_EVENTS = ("cuda", "xpu")


class Timeline(Protocol):
    """One block's phases, in the order in which they end."""

    def restart(self) -> None:
        """Begin a block; the device has no work left."""
        ...

    def mark(self, phase: StepPhase) -> None:
        """Count the time since the last mark as `phase`."""
        ...

    def phases(self, seconds: float) -> dict[StepPhase, float]:
        """Shares of `seconds`, the block's length; call this after the device has done its work."""
        ...


def make_timeline(device: torch.device, clock: Callable[[], float]) -> Timeline:
    """A timeline by the device's clock if PyTorch can read it, else by the host's clock."""
    return DeviceTimeline(device) if device.type in _WITH_TIMED_EVENTS else HostTimeline(clock)


class HostTimeline:
    """Exact if the host runs the operators itself; for other devices it sees when work was queued."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last_s = clock()
        self._seconds: dict[StepPhase, float] = {}

    def restart(self) -> None:
        self._seconds = {}
        self._last_s = self._clock()

    def mark(self, phase: StepPhase) -> None:
        now_s = self._clock()
        self._seconds[phase] = self._seconds.get(phase, 0.0) + now_s - self._last_s
        self._last_s = now_s

    def phases(self, seconds: float) -> dict[StepPhase, float]:
        return _scaled(self._seconds, seconds)


class DeviceTimeline:
    """Events recorded into the current stream; they are reused in each block."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events: list[Any] = []
        self._phases: list[StepPhase] = []

    def restart(self) -> None:
        self._phases = []
        self._record()

    def mark(self, phase: StepPhase) -> None:
        if not self._events:  # the warm-up: its phases are not needed
            return
        self._phases.append(phase)
        self._record()

    def phases(self, seconds: float) -> dict[StepPhase, float]:
        totals: dict[StepPhase, float] = {}
        for phase, (begin, end) in zip(self._phases, itertools.pairwise(self._events), strict=False):
            totals[phase] = totals.get(phase, 0.0) + begin.elapsed_time(end)
        return _scaled(totals, seconds)

    def _record(self) -> None:
        position = len(self._phases)
        if position == len(self._events):
            self._events.append(getattr(torch, self._device.type).Event(enable_timing=True))
        self._events[position].record()


def _scaled(parts: dict[StepPhase, float], total: float) -> dict[StepPhase, float]:
    """`parts`, scaled to add up to `total`."""
    whole = sum(parts.values())
    return {phase: part * total / whole for phase, part in parts.items()} if whole > 0 else {}
