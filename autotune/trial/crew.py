"""Those that train one model together, as the measurement knows them: it leads, and the others do as it does.

Every decision that depends on a clock is made by one process and told to all: whether to go on, and for how many steps.
"""

from __future__ import annotations

from typing import Protocol

from autotune.records import OptimizerSteps

END, HARVEST = 0, -1
"""Orders beside a number of optimizer steps."""


def discard(batches: int) -> int:
    """The order to take so many micro-batches without training on them."""
    return HARVEST - batches


def discarded(order: int) -> int:
    """How many micro-batches an order has discarded; 0 of all other orders."""
    return max(HARVEST - order, 0)


class Crew(Protocol):
    """A process and those that train with it."""

    size: int

    def lead(self, order: int) -> None:
        """Tell the others what is done next; of one that follows: nothing."""

    def pool(self, steps: OptimizerSteps) -> OptimizerSteps:
        """What all of them said together: mean losses, and samples added up."""

    def note_step(self) -> None:
        """An optimizer step has been asked of the device."""


class _Alone:
    size = 1

    def lead(self, order: int) -> None:
        pass

    def pool(self, steps: OptimizerSteps) -> OptimizerSteps:
        return steps

    def note_step(self) -> None:
        pass


ALONE: Crew = _Alone()
