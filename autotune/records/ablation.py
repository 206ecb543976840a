"""The result of an ablation: `ablation.json`. All intervals are 95 % intervals."""

from __future__ import annotations

from autotune.config import KnobValue
from autotune.records.base import Config, Record
from autotune.records.facts import Facts
from autotune.records.trial import TrialStatus

Ends = tuple[float, float]


class Ratio(Record):
    """The ratio of two measurements, with its interval; the interval is None after one round, which shows no spread."""

    ratio: float
    ci95: Ends | None

    @property
    def is_clear(self) -> bool:
        """Whether the whole interval is on one side of 1."""
        return self.ci95 is not None and not self.ci95[0] <= 1 <= self.ci95[1]


class Factor(Record):
    """One technique: a knob with two levels."""

    knob: str
    label: str
    """Its name in tables and plots."""
    off: KnobValue
    on: KnobValue


class CellFigures(Record):
    """One combination of the techniques, measured in a new process in every round."""

    on: tuple[str, ...]
    """Labels of the techniques that are switched on; empty: the reference cell, with which all others are compared."""
    config: Config
    status: TrialStatus
    """`ok`, or how it failed if it has no measurement."""
    runs: int
    """Processes with a measurement."""
    failures: tuple[str, ...] = ()
    """Why other processes have no measurement, one line each."""
    samples_per_s: float | None = None
    """Geometric mean over the rounds."""
    samples_per_s_ci95: Ends | None = None
    ratio: Ratio | None = None
    """Throughput divided by that of the reference cell; the intervals of all cells hold simultaneously."""
    peak_memory_bytes: int | None = None
    """Largest over the rounds."""
    memory_ratio: Ratio | None = None
    """Peak memory divided by that of the reference cell."""
    data_wait_fraction: float | None = None
    loss: float | None = None
    """Mean loss over the samples of `loss_window` and over the rounds."""
    loss_difference: float | None = None
    """Difference from the reference cell, with the same weights and samples in every round."""
    loss_difference_ci95: Ends | None = None


class Effect(Record):
    """The effect of a technique, averaged over all others, or the interaction of several techniques.

    For one technique: the ratio of throughput with it to throughput without it. For several: the ratio of their joint
    effect to the product of their single effects. The intervals of all effects hold simultaneously.
    """

    techniques: tuple[str, ...]
    throughput: Ratio | None = None
    memory: Ratio | None = None
    """Ratio of peak memory."""
    unavailable: str | None = None
    """Why there is none."""


class Together(Record):
    """All techniques at once, compared with the product of their single effects."""

    throughput: Ratio
    """Throughput with all of them, divided by that of the reference cell."""
    product: Ratio
    """The product of the ratios of each technique alone."""
    beyond: Ratio
    """`throughput` divided by `product`: below 1, the techniques reduce each other's effect."""


class LossWindow(Record):
    """The samples over which losses are compared: every run of every round has reached them."""

    first_sample: int
    last_sample: int


class Ablation(Record):
    """`ablation.json`."""

    format: int = 1
    name: str
    command: str
    created: str
    """UTC, ISO 8601."""
    factors: tuple[Factor, ...]
    dropped: tuple[str, ...]
    """Techniques that cannot apply here, and why."""
    effective_batch_size: int
    rounds: int
    """Rounds in which every cell that works has a measurement."""
    processes: int
    cells: tuple[CellFigures, ...]
    effects: tuple[Effect, ...]
    together: Together | None
    """None for a single technique, or if a cell that it needs did not run."""
    loss_window: LossWindow | None
    notes: tuple[str, ...]
    budget_s: float
    elapsed_s: float
    interrupted: bool = False
    environment: Facts
    spec_sha256: str

    @property
    def plain(self) -> CellFigures:
        return self.cells[0]
