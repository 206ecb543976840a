"""What an ablation came to: `ablation.json`. All intervals are 95 % ones."""

from __future__ import annotations

from autotune.config import KnobValue
from autotune.records.base import Config, Record
from autotune.records.facts import Facts
from autotune.records.trial import TrialStatus

Ends = tuple[float, float]


class Ratio(Record):
    """One figure over another, with its interval; None where one round alone says nothing about the spread."""

    ratio: float
    ci95: Ends | None

    @property
    def is_clear(self) -> bool:
        """Whether the whole interval lies on one side of 1."""
        return self.ci95 is not None and not self.ci95[0] <= 1 <= self.ci95[1]


class Factor(Record):
    """One technique: a knob with two levels."""

    knob: str
    label: str
    """As tables and plots name it."""
    off: KnobValue
    on: KnobValue


class CellFigures(Record):
    """One combination of the techniques, measured in a fresh process in every round."""

    on: tuple[str, ...]
    """Labels of the techniques that are switched on; empty: the plain cell, which all others are compared with."""
    config: Config
    status: TrialStatus
    """`ok`, or how it failed if it has no measurement."""
    runs: int
    """Processes with a measurement."""
    failures: tuple[str, ...] = ()
    """Why others did not, one line each."""
    samples_per_s: float | None = None
    """Geometric mean over the rounds."""
    samples_per_s_ci95: Ends | None = None
    ratio: Ratio | None = None
    """Throughput over the plain cell's; the intervals of all cells hold together."""
    peak_memory_bytes: int | None = None
    """Largest over the rounds."""
    memory_ratio: Ratio | None = None
    """Peak memory over the plain cell's."""
    data_wait_fraction: float | None = None
    loss: float | None = None
    """Mean over the samples of `loss_window`, over the rounds."""
    loss_difference: float | None = None
    """To the plain cell, from the same weights and samples in every round."""
    loss_difference_ci95: Ends | None = None


class Effect(Record):
    """What a technique does on average over all others, or what several do together beyond their parts.

    Of one technique: the ratio with it to without it. Of several: the ratio of what they do together to the product of
    what they do apart. The intervals of all effects hold together.
    """

    techniques: tuple[str, ...]
    throughput: Ratio | None = None
    memory: Ratio | None = None
    """Ratio of peak memory."""
    unavailable: str | None = None
    """Why there is none."""


class Together(Record):
    """All techniques at once, against what each alone promises."""

    throughput: Ratio
    """All of them over the plain cell."""
    product: Ratio
    """What those of each alone multiply to."""
    beyond: Ratio
    """The one over the other: below 1, they take something from each other."""


class LossWindow(Record):
    """The samples over which losses are compared: those that every run of every round has reached."""

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
    """Rounds in which every cell that runs at all has a measurement."""
    processes: int
    cells: tuple[CellFigures, ...]
    effects: tuple[Effect, ...]
    together: Together | None
    """None for a single technique, or where a cell that it needs did not run."""
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
