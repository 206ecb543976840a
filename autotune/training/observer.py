"""The interface for watching a step: trials measure through it; other training needs no observer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from torch import nn

StepMark = Literal["copy", "forward_backward", "optimizer"]


class StepObserver(Protocol):
    """Called from inside a step. May queue work on the device, and must not wait for it."""

    def mark(self, phase: StepMark) -> None:
        """All work of `phase`, for this micro-batch or this window, has been queued on the device."""

    def look_at_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """The window is full: `parameters` hold its gradient, unscaled and not yet clipped."""


class Unobserved:
    """Watches nothing."""

    def mark(self, phase: StepMark) -> None:
        pass

    def look_at_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        pass
