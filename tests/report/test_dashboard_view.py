"""What the dashboard takes for the best trial is what was emitted."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from support.bench import Bench
from support.simulation import good_sense
from support.studies import finished

from autotune.records import TrialStatus
from autotune.report.dashboard.view import view_of
from autotune.report.reading import Reading, read_study
from autotune.search import Interrupted
from autotune.search.figures import samples_per_s
from autotune.search.storage import stored_study


def told(reading: Reading) -> list[FrozenTrial]:
    with stored_study(reading.folder, writable=False) as study:
        return study.trials


def viewed(reading: Reading) -> optuna.Study:
    with stored_study(reading.folder, writable=False) as study:
        return view_of(study, reading, "mine")


def emitted_trials(reading: Reading) -> set[int | None]:
    return {record.optuna_trial for record in reading.searched if record.result.config == reading.emitted}


@pytest.mark.parametrize("study", ["gpu", "refused", "constrained", "baseline"])
def test_the_best_trial_is_the_emitted_one(study: str, tmp_path: Path) -> None:
    reading = finished(study, tmp_path)
    best = viewed(reading).best_trial
    assert best.number in emitted_trials(reading)
    assert best.value == pytest.approx(reading.document["measured"]["samples_per_s"])


@pytest.mark.parametrize("study", ["refused", "constrained"])
def test_what_was_faster_says_why_it_was_not_emitted(study: str, tmp_path: Path) -> None:
    reading = finished(study, tmp_path)
    best = viewed(reading).best_trial
    faster = {
        record.optuna_trial
        for record in reading.measured
        if samples_per_s(record) > best.value and record.optuna_trial != best.number
    }
    assert faster, "the study is no test of it"
    for trial in viewed(reading).trials:
        if trial.number in faster and trial.value is None:
            assert trial.state is TrialState.PRUNED
            assert trial.user_attrs["not_emitted_because"]
        elif trial.number in faster:
            assert trial.value < best.value, "it was in its confirmation"


def test_refusals_are_named(tmp_path: Path) -> None:
    reading = finished("refused", tmp_path)
    reasons = {trial.user_attrs.get("not_emitted_because") for trial in viewed(reading).trials}
    assert any(reason and reason.startswith("refused by loss") for reason in reasons)


def test_by_optunas_own_books_nothing_that_broke_a_constraint_is_best(tmp_path: Path) -> None:
    reading = finished("constrained", tmp_path)
    with stored_study(reading.folder, writable=False) as study:
        value, number = max(
            (trial.value, -trial.number) for trial in study.trials if trial.state is TrialState.COMPLETE
        )
        best = study.trials[-number]
    assert value <= 95.0
    assert all(value <= 0 for value in best.constraints.values())
    assert best.user_attrs["micro_batch_size"] <= 16


def test_failures_are_failures_and_have_no_value(tmp_path: Path) -> None:
    reading = finished("gpu", tmp_path)
    failed = {record.optuna_trial for record in reading.searched if record.result.status is TrialStatus.OOM}
    assert failed
    for trial in viewed(reading).trials:
        if trial.number in failed:
            assert (trial.state, trial.value) == (TrialState.FAIL, None)
            assert trial.user_attrs["status"] == "oom"
            assert trial.user_attrs["reason"]


def test_knobs_have_their_values(tmp_path: Path) -> None:
    reading = finished("gpu", tmp_path)
    configs = {record.optuna_trial: record.result.config for record in reading.searched}
    dtypes = set()
    for trial in viewed(reading).trials:
        dtypes.add(trial.params["amp_dtype"])
        if configs[trial.number] != reading.baseline:  # a knob without effect there may be told at any value
            assert trial.params["amp_dtype"] == configs[trial.number].amp_dtype
    assert len(dtypes) > 1


def test_ids_are_those_that_edits_refer_to(tmp_path: Path) -> None:
    reading = finished("gpu", tmp_path)
    with stored_study(reading.folder, writable=False) as study:
        view = view_of(study, reading, "mine")
        assert view._study_id == study._study_id
        assert [trial._trial_id for trial in view.trials] == [trial._trial_id for trial in study.trials]
    assert [study.study_name for study in view._storage.get_all_studies()] == ["mine"]


def test_a_study_that_was_stopped_shows_its_best_so_far(tmp_path: Path) -> None:
    bench = Bench(tmp_path, on_disk=True)
    backend = bench.backend(good_sense)
    backend.interrupt_at = 8
    with pytest.raises(Interrupted):
        bench.search(backend)
    reading = read_study(bench.folder)
    assert viewed(reading).best_trial.number in emitted_trials(reading)


def test_real_figures_stand_in_the_study_itself(tmp_path: Path) -> None:
    reading = finished("gpu", tmp_path)
    for trial in told(reading):
        attributes = trial.user_attrs
        assert {"status", "amp_dtype", "micro_batch_size"} <= attributes.keys()
        assert (attributes["status"] == "ok") == ("samples_per_s" in attributes) or attributes["status"] == "pruned"
    with stored_study(reading.folder, writable=False) as study:
        assert study.metric_names == ["samples_per_s"]
