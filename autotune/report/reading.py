"""A study folder as all reports use it: read once, checked once, with its trials in the order in which they ran."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from autotune.config import TrainConfig
from autotune.errors import EnvironmentFailure, SpecError
from autotune.records import SEARCHING, Facts, Purpose, TrialRecord
from autotune.search.figures import is_ok, samples_per_s
from autotune.search.gates import violations
from autotune.search.smaller_baseline import fitting, out_of_memory
from autotune.search.space import Space
from autotune.spec import Spec
from autotune.store import StudyFolder, read_study_spec


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """The result of one study, or its state so far. Text in it may come from users' code: escape it.

    Compared by identity, so that values calculated from it can be cached.
    """

    folder: StudyFolder
    document: dict[str, Any]
    """Content of `best.yaml`; while the study runs, the best so far."""
    records: tuple[TrialRecord, ...]
    spec: Spec

    @property
    def name(self) -> str:
        return str(self.document["study"])

    @property
    def facts(self) -> Facts:
        return self.records[-1].environment

    @cached_property
    def emitted(self) -> TrainConfig:
        return TrainConfig.from_dict(self.document["config"])

    @cached_property
    def baseline(self) -> TrainConfig:
        return TrainConfig.from_dict(self.document["baseline"]["config"])

    @cached_property
    def space(self) -> Space:
        """The space that was searched, with what was dropped from it and why."""
        return fitting(self.spec, self.facts, out_of_memory(self.records))[1]

    @cached_property
    def searched(self) -> tuple[TrialRecord, ...]:
        """The trials of the search itself."""
        return tuple(record for record in self.records if record.purpose in SEARCHING)

    @cached_property
    def measured(self) -> tuple[TrialRecord, ...]:
        """The measured ones among them, the fastest first."""
        return tuple(sorted(filter(is_ok, self.searched), key=samples_per_s, reverse=True))

    def of_purpose(self, purpose: Purpose) -> tuple[TrialRecord, ...]:
        return tuple(record for record in self.records if record.purpose is purpose)

    def confirming(self, config: TrainConfig) -> tuple[TrialRecord, ...]:
        """The confirming runs of `config`."""
        runs = self.of_purpose(Purpose.CONFIRM)
        return tuple(run for run in runs if run.result.config == config and is_ok(run))

    def meets_constraints(self, record: TrialRecord) -> bool:
        """Whether the measurements of this one run meet the spec's constraints on measures."""
        return max(violations(record, self.spec.parsed_constraints()), default=0.0) <= 0

    @cached_property
    def refused(self) -> dict[TrainConfig, list[dict[str, Any]]]:
        """Configurations that a stability gate refused, with the failed checks."""
        entries = self.document["stability"].get("refused", [])
        return {TrainConfig.from_dict(entry["config"]): entry["checks"] for entry in entries}


def read_study(folder: StudyFolder) -> Reading:
    """Read the study in `folder`, also while it runs. Raises SpecError if nothing has been measured yet, and
    EnvironmentFailure for damaged files."""
    document = folder.read_best()
    if document is None:
        raise SpecError(f"{folder.path} has no result yet; the search writes one after the first trial of the baseline")
    records = tuple(folder.read_trials())
    if not records:
        raise EnvironmentFailure(
            f"{folder.trials} has no records of trials, but {folder.best} was made from some; restore them"
        )
    return Reading(folder=folder, document=document, records=records, spec=read_study_spec(folder))
