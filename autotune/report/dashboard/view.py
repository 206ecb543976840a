"""The study as the dashboard shows it: a copy in memory in which the result has the highest value.

Optuna never changes the value of a trial. But the result is decided later: the fastest single run was often just lucky,
confirmation gives other values, and a stability gate may refuse the leader. Optuna's dashboard also ignores
constraints. So in this copy, a trial has its confirmed throughput, if there is one. A trial that would beat the result
is shown as pruned, with its measurement and the reason among its attributes. Knobs have their values instead of the
indices that samplers use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autotune.records import TrialRecord
from autotune.report import words
from autotune.report.cleaning import one_line
from autotune.report.reading import Reading
from autotune.report.tried import Tried, tried
from autotune.search.figures import is_ok
from autotune.search.performance import OBSERVATION, PREDICTED
from autotune.search.storage import name_metric

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def view_of(told: optuna.Study, reading: Reading | None, name: str) -> optuna.Study:
    """A copy of `told`, with its numbers and ids. `reading`: None while there is no measurement yet."""
    storage = InMemoryStorage()
    trials = told.get_trials(deepcopy=False)
    study = _as_numbered(storage, told, trials, name)
    for key, value in told._storage.get_study_system_attrs(told._study_id).items():
        storage.set_study_system_attr(study._study_id, key, value)
    name_metric(study)
    records = {record.optuna_trial: record for record in reading.searched} if reading else {}
    for trial in trials:
        record = records.get(trial.number)
        storage.create_new_trial(study._study_id, _shown(trial, record, reading) if reading else trial)
    return study


def _as_numbered(storage: BaseStorage, told: optuna.Study, trials: list[FrozenTrial], name: str) -> optuna.Study:
    """An empty study. It and its first trial will have the same ids as in `told`, because edits refer to them."""
    first = min((trial._trial_id for trial in trials), default=0)
    for number in range(told._study_id):
        placeholder = storage.create_new_study([StudyDirection.MAXIMIZE], f"placeholder-{number}")
        for _ in range(first if number == 0 else 0):
            storage.create_new_trial(placeholder)
        storage.delete_study(placeholder)
    return optuna.create_study(storage=storage, study_name=name, direction="maximize")


def _shown(trial: FrozenTrial, record: TrialRecord | None, reading: Reading) -> FrozenTrial:
    state, value, attributes = _judged(trial, record, reading)
    params, distributions = _in_values(trial, reading)
    return FrozenTrial(
        number=trial.number,
        trial_id=trial._trial_id,
        state=state,
        value=value,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=params,
        distributions=distributions,
        user_attrs={**_readable(trial.user_attrs), **attributes},
        system_attrs=trial.system_attrs,
        intermediate_values={},
    )


def _judged(
    trial: FrozenTrial, record: TrialRecord | None, reading: Reading
) -> tuple[TrialState, float | None, dict[str, Any]]:
    """State, value and additional attributes."""
    if trial.state not in _FINISHED or record is None:
        return trial.state, trial.value, {}
    if not is_ok(record):
        return TrialState.FAIL, None, {}
    config = record.result.config
    found = tried(reading)[config]
    if config == reading.emitted:
        return TrialState.COMPLETE, found.samples_per_s, {"emitted": True}
    reason = _why_not(found, reading)
    if reason:
        attributes = {"samples_per_s": found.samples_per_s, "not_emitted_because": reason}
        return TrialState.PRUNED, None, attributes
    return TrialState.COMPLETE, found.samples_per_s, {}


def _why_not(found: Tried, reading: Reading) -> str | None:
    """Why a configuration that looks at least as good as the result was not chosen; None for those that look worse."""
    if found.config in reading.refused:
        checks = reading.refused[found.config]
        return "refused by " + ", ".join(one_line(check["name"]) for check in checks if not check["passed"])
    if not found.eligible:
        return "breaks a constraint of the spec"
    best = float(reading.document["measured"]["samples_per_s"])
    if found.samples_per_s < best:
        return None
    if not found.confirmed:
        return (
            "a single run, and the luckiest of many runs looks faster than it is; the result of the study measured "
            f"{words.rate(best)} samples/s in {_rounds(reading)} of confirmation"
        )
    return "not reliably faster in confirming runs, and a larger change than the result of the study"


def _rounds(reading: Reading) -> str:
    count = len(reading.confirming(reading.emitted))
    return "1 round" if count == 1 else f"{count} rounds"


def _in_values(trial: FrozenTrial, reading: Reading) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Params as values of the knobs; unchanged if they belong to another space."""
    dimensions = {dimension.knob: dimension for dimension in reading.space.dimensions}
    if not trial.params.keys() <= dimensions.keys():
        return trial.params, trial.distributions
    params = {knob: dimensions[knob].values[index] for knob, index in trial.params.items()}
    distributions = {knob: CategoricalDistribution(dimensions[knob].values) for knob in params}
    return params, dict(distributions)


def _readable(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes without those that only the strategy reads."""
    shown = {key: value for key, value in attributes.items() if key not in (OBSERVATION, PREDICTED)}
    if expected := attributes.get(PREDICTED):
        shown["predicted_samples_per_s"] = expected["samples_per_s"]
    return shown
