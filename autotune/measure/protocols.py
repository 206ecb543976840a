"""What the measurement asks of a training loop, its loader and its machine: a real trial has them, a virtual world too.

A loop reads all its times from one clock, in seconds; where processes train together, one of them measures and leads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from autotune.measure.loader_log import LoaderLog
from autotune.records import Disturbance, MachineState, OptimizerSteps, StepPhase

Report = Callable[[str, dict[str, Any]], None]
"""Takes the name of an event and its payload."""
Judge = Callable[[MachineState, float], tuple[Disturbance, ...]]
"""What disturbed a block, from the machine's state during it and its seconds."""


class Loop(Protocol):
    """A training loop, one optimizer step at a time. A step only asks the device for work; `synchronise` waits."""

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
        """Trained on so far, over all ranks."""
        ...

    @property
    def steps_done(self) -> int:
        """Optimizer steps so far."""
        ...

    def clock(self) -> float: ...

    def begin(self, steps: int) -> None:
        """To be called before `steps` optimizer steps: all ranks are told, and the phases are counted from here."""

    def optimizer_step(self) -> None: ...

    def synchronise(self) -> None:
        """Wait until the device has done all that it was asked for."""

    def phases(self, seconds: float) -> dict[StepPhase, float]:
        """Where the time since `begin` went, scaled to add up to `seconds`; asked once the device has been waited for.

        `data_wait` is what the device idled for data; empty where nobody can tell.
        """
        ...

    def discard(self, batches: int) -> None:
        """Take `batches` micro-batches on every rank without training on them; over an epoch's end like a step."""

    def harvest(self) -> OptimizerSteps:
        """What the steps since the last harvest said. Raises Diverged."""
        ...


class Loader(Protocol):
    """The loader of the process that measures."""

    def read(self) -> LoaderLog:
        """Everything that is known by now; the same object each time."""
        ...


class Machine(Protocol):
    """The machine during one block after the other."""

    def find_workers(self) -> None:
        """Count the loader's processes as the trial's own from here on."""

    def start(self) -> None: ...

    def read(self) -> MachineState:
        """Since the last `start`."""
        ...
