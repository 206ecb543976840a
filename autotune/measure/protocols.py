"""What the measurement needs from a training loop, its loader and its machine: a real trial or a simulated world
implements it.

A loop reads all times from one clock, in seconds. If processes train together, one of them measures and leads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from autotune.measure.loader_log import LoaderLog
from autotune.records import Disturbance, MachineState, OptimizerSteps, StepPhase

Report = Callable[[str, dict[str, Any]], None]
"""Called with the name of an event and its payload."""
Judge = Callable[[MachineState, float], tuple[Disturbance, ...]]
"""Returns what disturbed a block, from the machine's state during the block and its seconds."""


class Loop(Protocol):
    """A training loop, one optimizer step at a time. A step only queues work on the device; `synchronise` waits."""

    @property
    def ranks(self) -> int:
        """Processes that train together."""
        ...

    @property
    def trains_on_cpu(self) -> bool:
        """Whether training computes on the CPU cores, as the loader's processes do."""
        ...

    @property
    def samples(self) -> int:
        """Samples trained on so far, over all ranks."""
        ...

    @property
    def steps_done(self) -> int:
        """Optimizer steps so far."""
        ...

    def clock(self) -> float: ...

    def begin(self, steps: int) -> None:
        """Call this before `steps` optimizer steps: it informs all ranks, and phases are counted from here."""

    def optimizer_step(self) -> None: ...

    def synchronise(self) -> None:
        """Wait until the device has done all queued work."""

    def phases(self, seconds: float) -> dict[StepPhase, float]:
        """How the time since `begin` was spent, scaled to add up to `seconds`; call this after `synchronise`.

        `data_wait` is the time in which the device was idle because of missing data. Empty if the phases are unknown.
        """
        ...

    def discard(self, batches: int) -> None:
        """Take `batches` micro-batches on every rank without training on them; continues in the next epoch if one
        ends."""

    def harvest(self) -> OptimizerSteps:
        """Results of the steps since the last harvest. Raises Diverged."""
        ...


class Loader(Protocol):
    """The loader in the process that measures."""

    def read(self) -> LoaderLog:
        """The log with everything that is known so far; the same object each time."""
        ...


class Machine(Protocol):
    """Observes the machine during each block."""

    def find_workers(self) -> None:
        """From now on, count the loader's processes as part of the trial."""

    def start(self) -> None: ...

    def read(self) -> MachineState:
        """The state since the last `start`."""
        ...
