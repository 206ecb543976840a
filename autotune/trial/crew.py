"""The ranks that train one model together, as the measurement sees them: its process leads, and the others follow.

One process makes every decision that depends on a clock, and sends it to all: whether to go on, and for how many steps.
"""

from __future__ import annotations

from typing import Protocol

from autotune.records import OptimizerSteps

END, HARVEST = 0, -1
"""Orders that are not a number of optimizer steps."""


def discard(batches: int) -> int:
    """The order to take so many micro-batches without training on them."""
    return HARVEST - batches


def discarded(order: int) -> int:
    """How many micro-batches an order discards; 0 for all other orders."""
    return max(HARVEST - order, 0)


class Crew(Protocol):
    """A process and those that train with it."""

    size: int

    def lead(self, order: int) -> None:
        """Tell the others what to do next; does nothing in a process that follows."""

    def pool(self, steps: OptimizerSteps) -> OptimizerSteps:
        """The results of all processes together: mean losses, and the sum of the samples."""

    def note_step(self) -> None:
        """Note that the host has queued an optimizer step on the device."""


class _Alone:
    size = 1

    def lead(self, order: int) -> None:
        pass

    def pool(self, steps: OptimizerSteps) -> OptimizerSteps:
        return steps

    def note_step(self) -> None:
        pass


ALONE: Crew = _Alone()
