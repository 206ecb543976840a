"""What a study says: figures, gates, its progress while it runs, and its result."""

from __future__ import annotations

import html
from enum import StrEnum
from typing import Any

from autotune.config import TrainConfig
from autotune.emitted import Emitted, settings_of, shown
from autotune.records.base import Config, Record
from autotune.records.facts import Facts
from autotune.records.trial import Predicted, Purpose, TrialStatus


class Measurement(Record):
    """How fast one configuration is, as `best.yaml` states it."""

    samples_per_s: float
    samples_per_s_ci95: tuple[float, float] | None
    """None where one run alone says nothing about the spread between runs."""
    step_time_s: float
    """Mean seconds of one optimizer step."""
    data_wait_fraction: float
    copy_fraction: float
    forward_backward_fraction: float
    optimizer_fraction: float
    """The four fractions of the step's time add up to 1."""
    peak_memory_bytes: int
    energy_j_per_sample: float | None = None
    """Energy of the whole device, if it counts that."""
    steps: int
    """Timed optimizer steps behind these figures."""
    supply_per_s: float | None = None
    """Samples per second that the loader delivers while its queue is not full; None in records without rates."""
    demand_per_s: float | None = None
    """Samples per second that the step takes while a batch is ready."""
    fetch_s: float | None = None
    """Wall seconds that one process takes to load one micro-batch."""
    fetch_cpu_s: float | None = None
    """CPU seconds of them; None if they could not be counted."""
    epoch_edge_fraction: float | None = None
    """Share of an epoch's time that its edge costs."""
    disturbed_blocks: int = 0
    """Timed blocks left out of them, because the machine was busy with something else, or throttled."""


class Check(Record):
    """One stability gate: what was measured, and the limit it had to stay within."""

    name: str
    passed: bool
    value: float
    limit: float
    detail: str = ""
    warns_only: bool = False
    """A limit that sound training may pass as well: the reader is told, the configuration stands."""
    conclusive: bool = True
    """False where the noise was too large, or the steps too few, to tell; it then passes."""

    @property
    def holds(self) -> bool:
        return self.passed or self.warns_only


class Phase(StrEnum):
    """Where a study stands."""

    PREPARING = "preparing"
    SEARCHING = "searching"
    CONFIRMING = "confirming"
    TESTING = "testing"
    """Stability tests of the leader."""
    SOAKING = "soaking"


class Standing(Record):
    """One configuration among the best so far."""

    config: Config
    samples_per_s: float
    peak_memory_bytes: int


class Running(Record):
    """A trial that is running now."""

    config: Config
    purpose: Purpose
    since_s: float
    """Elapsed budget when it was asked for."""
    round: int | None = None
    """Round of the confirmation."""
    predicted: Predicted | None = None
    """What the strategy expects of it."""
    samples_per_s: float | None = None
    """Over the blocks so far; None while it warms up."""
    samples_per_s_ci95: tuple[float, float] | None = None
    """From the spread between these blocks; None for fewer than two."""

    @property
    def key(self) -> tuple[TrainConfig, float]:
        """What tells it from every other run of the study."""
        return self.config, self.since_s


class Progress(Record):
    """A snapshot of a running study, enough to draw the whole screen from."""

    study: str
    phase: Phase
    budget_s: float
    elapsed_s: float
    baseline: Standing | None
    leaders: tuple[Standing, ...]
    """The fastest few, best first."""
    best_so_far: tuple[float, ...] = ()
    """Samples per second of the fastest after each trial of the search, the baseline's first."""
    running: tuple[Running, ...]
    """The one that began first is the first."""
    by_status: dict[TrialStatus, int]
    message: str = ""
    """One line about what happened last."""


class Verification(Record):
    """What a study's emitted configuration is worth now, beside what was promised. Ratios are over the baseline."""

    study: str
    holds: bool
    reason: str
    """Why it holds or does not, in words."""
    known: bool = True
    """Whether the runs could tell. If not, `holds` is false."""
    promised: bool = True
    """Whether the search promised anything: not where its verdict was `unconfirmed`."""
    promised_ratio: float
    promised_ratio_ci95: tuple[float, float] | None
    promised_samples_per_s: float
    ratio: float | None
    """None if no round was completed."""
    ratio_ci95: tuple[float, float] | None
    outcome: str | None
    samples_per_s: float | None
    samples_per_s_ci95: tuple[float, float] | None
    rounds: int
    environment_changes: tuple[str, ...]
    """One line for each figure of the environment that is not what it was."""


class ExportVerification(Record):
    """What an exported script is worth beside the trials of the configuration that it was exported from."""

    study: str
    holds: bool
    reason: str
    """Why it holds or does not, in words."""
    promised_samples_per_s: float
    """By the study, when it was searched."""
    samples_per_s: float | None
    """Throughput of the script now; None if no round was completed."""
    ratio: float | None
    """Throughput of the script over that of the trials that ran in turns with it."""
    ratio_ci95: tuple[float, float] | None
    rounds: int


class SearchResult(Record):
    """The result of a search. `best` is the document of `best.yaml`."""

    folder: str
    best: dict[str, Any]
    facts: Facts
    dropped: tuple[str, ...]
    """Knobs and values that were not searched, each with its reason."""
    notes: tuple[str, ...]
    """What a reader should know before relying on the result, in words."""
    already_finished: bool = False

    @property
    def config(self) -> TrainConfig:
        """What to train with."""
        return self.emitted.config

    @property
    def speedup(self) -> float:
        """Throughput of `config` over the baseline's."""
        return self.emitted.speedup

    @property
    def verdict(self) -> str:
        """`stable`: no instability was seen in the steps that were run; `unconfirmed`: the budget ended before that."""
        return self.emitted.verdict

    @property
    def emitted(self) -> Emitted:
        """The result, its figures and its baseline."""
        return Emitted.from_document(self.best)

    def __str__(self) -> str:
        """What it is worth, what it changes, what to know of it, and where it is."""
        emitted, before = self.emitted, settings_of(self.emitted.baseline.config)
        changes = {name: value for name, value in settings_of(self.config).items() if value != before.get(name)}
        lines = [f"{emitted.study}: {emitted.worth}", *(f"  {name}: {shown(value)}" for name, value in changes.items())]
        return "\n".join([*lines, *(f"- {note}" for note in self.notes), self.folder])

    def __repr__(self) -> str:
        return f"SearchResult({self.folder!r}: {self.emitted.worth})"

    def _repr_html_(self) -> str:
        """A table and what to know of it, for notebooks."""
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        return self.emitted.as_html() + (f"<ul>{notes}</ul>" if notes else "")
