"""Data of a study: measurements, gates, progress while it runs, and the result."""

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
    """None for a single run, which shows no spread between runs."""
    step_time_s: float
    """Mean seconds of one optimizer step."""
    data_wait_fraction: float
    copy_fraction: float
    forward_backward_fraction: float
    optimizer_fraction: float
    """The four fractions of the step's time add up to 1."""
    peak_memory_bytes: int
    energy_j_per_sample: float | None = None
    """Energy of the whole device, if the device measures it."""
    steps: int
    """Number of timed optimizer steps behind these values."""
    supply_per_s: float | None = None
    """Samples per second that the loader delivers while its queue is not full; None in records without rates."""
    demand_per_s: float | None = None
    """Samples per second that the step takes while a batch is ready."""
    fetch_s: float | None = None
    """Wall seconds that one process takes to load one micro-batch."""
    fetch_cpu_s: float | None = None
    """CPU seconds of that; None if they could not be counted."""
    epoch_edge_fraction: float | None = None
    """Share of an epoch's time that its edge costs."""
    disturbed_blocks: int = 0
    """Timed blocks that were left out because the machine was busy with other work, or throttled."""


class Check(Record):
    """One stability gate: the measured value and its limit."""

    name: str
    passed: bool
    value: float
    limit: float
    detail: str = ""
    warns_only: bool = False
    """Healthy training may exceed this limit too: a warning is shown, and the configuration is kept."""
    conclusive: bool = True
    """False if there was too much noise, or too few steps, to decide; the gate then passes."""

    @property
    def holds(self) -> bool:
        return self.passed or self.warns_only


class Phase(StrEnum):
    """The phase that a study is in."""

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
    """Elapsed budget when it was requested."""
    round: int | None = None
    """Round of confirmation."""
    predicted: Predicted | None = None
    """The strategy's prediction for it."""
    samples_per_s: float | None = None
    """Over the blocks so far; None while it warms up."""
    samples_per_s_ci95: tuple[float, float] | None = None
    """From the spread of these blocks; None for fewer than two."""

    @property
    def key(self) -> tuple[TrainConfig, float]:
        """Identifies this run among all runs of the study."""
        return self.config, self.since_s


class Progress(Record):
    """A snapshot of a running study, with everything that the screen shows."""

    study: str
    phase: Phase
    budget_s: float
    elapsed_s: float
    baseline: Standing | None
    leaders: tuple[Standing, ...]
    """The fastest few, best first."""
    best_so_far: tuple[float, ...] = ()
    """Samples per second of the fastest configuration after each trial of the search; the first is the baseline's."""
    running: tuple[Running, ...]
    """In the order in which they began."""
    by_status: dict[TrialStatus, int]
    message: str = ""
    """One line about what happened last."""


class Verification(Record):
    """The present speed of a study's result, compared with what was promised. Ratios are relative to the baseline."""

    study: str
    holds: bool
    reason: str
    """Why the promise holds or does not."""
    known: bool = True
    """Whether the runs were enough to decide. If not, `holds` is false."""
    promised: bool = True
    """Whether the search promised anything: false if its verdict was `unconfirmed`."""
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
    """One line for each property of the environment that has changed."""


class ExportVerification(Record):
    """The speed of an exported script, compared with trials of the same configuration."""

    study: str
    holds: bool
    reason: str
    """Why the promise holds or does not."""
    promised_samples_per_s: float
    """As measured by the study during its search."""
    samples_per_s: float | None
    """Throughput of the script now; None if no round was completed."""
    ratio: float | None
    """Throughput of the script, divided by that of the trials that ran in turns with it."""
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
    """What to know before relying on the result, one sentence each."""
    already_finished: bool = False

    @property
    def config(self) -> TrainConfig:
        """The configuration to train with."""
        return self.emitted.config

    @property
    def speedup(self) -> float:
        """Throughput of `config`, divided by the baseline's."""
        return self.emitted.speedup

    @property
    def verdict(self) -> str:
        """`stable`: no instability was seen in the steps that were run; `unconfirmed`: the budget ended before that was
        tested."""
        return self.emitted.verdict

    @property
    def emitted(self) -> Emitted:
        """The result with its measurements and its baseline."""
        return Emitted.from_document(self.best)

    def __str__(self) -> str:
        """The speed-up, the changed settings, the notes, and where the files are."""
        emitted, before = self.emitted, settings_of(self.emitted.baseline.config)
        changes = {name: value for name, value in settings_of(self.config).items() if value != before.get(name)}
        lines = [f"{emitted.study}: {emitted.worth}", *(f"  {name}: {shown(value)}" for name, value in changes.items())]
        return "\n".join([*lines, *(f"- {note}" for note in self.notes), self.folder])

    def __repr__(self) -> str:
        return f"SearchResult({self.folder!r}: {self.emitted.worth})"

    def _repr_html_(self) -> str:
        """A table with the notes, for notebooks."""
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        return self.emitted.as_html() + (f"<ul>{notes}</ul>" if notes else "")
