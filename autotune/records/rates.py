"""The two sides of a training run, and the throughput of a run of hours that follows from them."""

from __future__ import annotations

from typing import Literal

from autotune.records.base import Record

Side = Literal["step", "loader"]
"""The part of a training run that is measured alone: the training step on ready batches, or the loader without
training."""


class SlowBatches(Record):
    """How often slow batches occur, which take several times as long to load as the others, and how long they take."""

    batches: int = 0
    """Number of batches seen."""
    slow: int = 0
    """Number of slow ones among them."""
    times: float = 1.0
    """Mean time of the slow ones, divided by that of the others."""

    def __add__(self, other: SlowBatches) -> SlowBatches:
        slow = self.slow + other.slow
        times = (self.slow * self.times + other.slow * other.times) / slow if slow else 1.0
        return SlowBatches(batches=self.batches + other.batches, slow=slow, times=times)


class Rates(Record):
    """Rates in samples per second, over all processes that train together.

    Errors are relative standard errors from the spread within the run; other processes may differ by more.
    """

    sustained_per_s: float
    """Throughput of a training run of hours: whole epochs after the first, edges included, with the loader's queue in
    its steady state."""
    sustained_error: float
    demand_per_s: float
    """Rate of the training step while a batch is ready."""
    demand_error: float
    supply_per_s: float
    """Rate of the loader while its queue is not full; without loader processes, the rate of the training process when
    it only loads."""
    supply_error: float
    fetch_s: float
    """Wall seconds that one process takes to load one micro-batch."""
    fetch_cpu_s: float | None = None
    """CPU seconds of that: the rest is waiting for a disk, a network or a lock. None if they could not be counted."""
    epoch_samples: int | None = None
    """Samples that an epoch trains on; None if no end of an epoch was seen."""
    epoch_edge_s: float = 0.0
    """Seconds that an epoch takes beyond its samples at the rate in its middle."""
    slow_batches: SlowBatches = SlowBatches()
    """Slow batches among all that the run has loaded."""
    whole_epochs: bool = False
    """Whether whole epochs were timed; otherwise only their middle, and the edge was calculated."""


class SideRate(Record):
    """The rate of one side without the other, in samples per second over all processes that train together."""

    per_s: float
    """As in `Rates`: `demand_per_s` of the step, or `supply_per_s` of the loader."""
    error: float
    """Relative standard error, from the spread within the run."""
    seconds: float
    """Duration of the measurement."""
    fetch_s: float | None = None
    """As in `Rates`; None for the step."""
    fetch_cpu_s: float | None = None
    slow_batches: SlowBatches = SlowBatches()
