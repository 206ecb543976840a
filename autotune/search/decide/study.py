"""The study so far: all that a decision may look at, and nothing that could do anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from autotune.config import TrainConfig
from autotune.records import Facts, Purpose, TrialRecord, TrialResult, TrialStatus
from autotune.search.budget import BudgetNow
from autotune.search.decide.costs import Costs
from autotune.search.figures import is_ok, samples_per_s
from autotune.search.gates import meets
from autotune.search.performance import PerformanceModel
from autotune.search.performance.fitting import model_of_records
from autotune.search.policy import WAITS_S
from autotune.search.space import Space
from autotune.spec import Constraint, Spec
from autotune.stats import rests_on_disturbed

T = TypeVar("T")

_WATCHED = (Purpose.PROBE, Purpose.REFERENCE)
_OF_RECORDS = ("baseline_trial", "measured", "eligible", "tried", "hung", "costs", "model")
"""What the records alone say, in a session."""


@dataclass(frozen=True, kw_only=True)
class StudySoFar:
    """A study at one moment."""

    spec: Spec
    facts: Facts
    space: Space
    budget: BudgetNow
    records: Sequence[TrialRecord] = ()
    """In the order in which they ended; those of earlier sessions are among them."""
    seeds: Sequence[TrainConfig] = ()
    """What is tried first, whatever the strategy proposes: the baseline and the expert's seeds."""
    known_before: int = 0
    """How many of the records earlier sessions have left."""
    exhausted: bool = False
    """Whether every configuration that is worth a trial has been tried."""
    nothing_worth_trying: bool = False
    """Whether the strategy has said so since the last trial ended."""
    in_flight: int = 0
    """Trials that run now."""
    one_at_a_time: bool = True
    """Whether there is one place for trials: several do not say what each of them would have cost alone."""
    has_room: bool = True
    """Whether another one may begin beside them."""

    def later(self, records: Sequence[TrialRecord], **changes: Any) -> StudySoFar:
        """The study at a later moment of the session. What the records say is kept if they are still the same."""
        later = dataclasses.replace(self, records=records, **changes)
        if len(records) == len(self.records):  # they are never taken away
            vars(later).update((name, known) for name, known in vars(self).items() if name in _OF_RECORDS)
        return later

    def once(self, what: Hashable, make: Callable[[], T]) -> T:
        """`make()`, for the first of several rules that ask for the same in one decision."""
        if what not in self._known:
            self._known[what] = make()
        found: T = self._known[what]
        return found

    @cached_property
    def _known(self) -> dict[Hashable, Any]:
        return {}

    @property
    def baseline(self) -> TrainConfig:
        return self.space.baseline

    @cached_property
    def baseline_trial(self) -> TrialRecord | None:
        return baseline_trial(self.records)

    def of_purpose(self, purpose: Purpose) -> list[TrialRecord]:
        return [record for record in self.records if record.purpose is purpose]

    def of_this_session(self, purpose: Purpose) -> list[TrialRecord]:
        return [record for record in self.records[self.known_before :] if record.purpose is purpose]

    @cached_property
    def measured(self) -> Sequence[TrialRecord]:
        return measured(self.records)

    @cached_property
    def eligible(self) -> Sequence[TrialRecord]:
        """Those of `measured` that meet the constraints on measures. The fastest is the best so far."""
        on_measures = [constraint for constraint in self.constraints if not constraint.on_knobs]
        return [record for record in self.measured if meets(record, on_measures)]

    @cached_property
    def tried(self) -> frozenset[TrainConfig]:
        """Configurations of the search that have a measurement."""
        return frozenset(record.result.config for record in self.measured)

    @cached_property
    def constraints(self) -> Sequence[Constraint]:
        """What the spec requires of every configuration, on knobs and on measures."""
        return self.spec.parsed_constraints()

    @cached_property
    def hung(self) -> frozenset[tuple[TrainConfig, int]]:
        """Configuration and seed of watched runs that were killed in this session. They do not run again in it."""
        runs = [record.result for record in self.records[self.known_before :] if record.purpose in _WATCHED]
        return frozenset((run.config, run.seed) for run in runs if not not_cut(run))

    @property
    def watched(self) -> list[TrialRecord]:
        """Probes and references."""
        return [record for record in self.records if record.purpose in _WATCHED]

    @cached_property
    def costs(self) -> Costs:
        return Costs(self.measured)

    @cached_property
    def is_usually_free(self) -> bool:
        """Whether most runs have found the machine undisturbed, or none has ended yet."""
        blocks = [record.result.blocks for record in self.records if is_ok(record)]
        return not blocks or 2 * sum(map(rests_on_disturbed, blocks)) < len(blocks)

    @property
    def waits_s(self) -> float:
        """How long a run may wait for the end of other work on the machine."""
        return WAITS_S if self.is_usually_free else 0.0

    @cached_property
    def model(self) -> PerformanceModel:
        """The model of what the search's trials have shown, and of how much all runs differ."""
        return model_of_records(self.space, self.facts, self.records)


def baseline_trial(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The baseline's own trial, once it has a measurement."""
    return next((each for each in records if each.purpose is Purpose.BASELINE and is_ok(each)), None)


def warm_baseline(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The run of the baseline that others are compared with until the rounds: its second run, if there is one, because
    the first may have read cold files and kernels."""
    repeats = [each for each in records if each.purpose is Purpose.REPEAT and is_ok(each)]
    return next(iter(repeats), None) or baseline_trial(records)


def measured(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Search trials with a measurement, the fastest first."""
    done = [record for record in records if record.optuna_trial is not None and is_ok(record)]
    return sorted(done, key=samples_per_s, reverse=True)


def not_cut(run: TrialResult) -> bool:
    """Whether it ended by itself, well or badly."""
    return run.status is not TrialStatus.TIMEOUT
