"""The two sides of a training run, and what a run of hours gets from them."""

from __future__ import annotations

from typing import Literal

from autotune.records.base import Record

Side = Literal["step", "loader"]
"""What of a training run is measured alone: the training step on batches that are there, or the loader, drained without
training."""


class SlowBatches(Record):
    """How often batches come that take several times as long to load as the others, and how long they take."""

    batches: int = 0
    """Seen in all."""
    slow: int = 0
    """Slow ones among them."""
    times: float = 1.0
    """Mean of the slow ones over what the others take."""

    def __add__(self, other: SlowBatches) -> SlowBatches:
        slow = self.slow + other.slow
        times = (self.slow * self.times + other.slow * other.times) / slow if slow else 1.0
        return SlowBatches(batches=self.batches + other.batches, slow=slow, times=times)


class Rates(Record):
    """Rates in samples per second, over all processes that train together.

    Errors are relative standard errors from the spread inside the run: another process may differ by more.
    """

    sustained_per_s: float
    """What a training run of hours gets: whole epochs after the first, their edges included, with the loader's queue in
    its own steady state."""
    sustained_error: float
    demand_per_s: float
    """What the training step takes while a batch is ready."""
    demand_error: float
    supply_per_s: float
    """What the loader delivers while its queue is not full; without loader processes, what the training process loads
    when it does nothing else."""
    supply_error: float
    fetch_s: float
    """Wall seconds that one process takes to load one micro-batch."""
    fetch_cpu_s: float | None = None
    """CPU seconds of them: the rest is waiting, for a disk, a network or a lock. None if they could not be counted."""
    epoch_samples: int | None = None
    """Samples that an epoch trains on; None where no end has been seen."""
    epoch_edge_s: float = 0.0
    """Seconds that an epoch takes beyond its samples at the rate in its middle."""
    slow_batches: SlowBatches = SlowBatches()
    """Among all that the run has loaded."""
    whole_epochs: bool = False
    """Whether whole epochs were timed; otherwise their middle, and the edge was calculated."""


class SideRate(Record):
    """What one side does without the other, in samples per second over all processes that train together."""

    per_s: float
    """`demand_per_s` of the step, `supply_per_s` of the loader, as `Rates` has them."""
    error: float
    """Relative standard error, from the spread inside the run."""
    seconds: float
    """That it was measured for."""
    fetch_s: float | None = None
    """As `Rates` has it; None for the step."""
    fetch_cpu_s: float | None = None
    slow_batches: SlowBatches = SlowBatches()
