"""Searches that measure one side alone: what they keep of it, what they tell Optuna, and what they emit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from support.storage import MemoryStudies

from autotune.config import TrainConfig
from autotune.execution.simulated import SimulatedBackend, VirtualClock, World, truth
from autotune.execution.simulated.catalogue import CPU, H200, worlds
from autotune.records import Progress, Purpose, SearchResult, TrialRecord, TrialStatus
from autotune.report import words
from autotune.report.figures.budget import spent_s
from autotune.report.html import report_page
from autotune.report.reading import read_study
from autotune.report.tried import tried
from autotune.search import Listener, search
from autotune.search.figures import has_failed, is_ok
from autotune.search.runner import TrialRunner
from autotune.search.strategies.auto import AutoSampler
from autotune.spec import load_spec
from autotune.store import StudyFolder

WORLD = worlds(H200)["compute-bound"]


class Searched:
    """A study in a world, to be searched once or again."""

    def __init__(self, path: Path, world: World, **changes: Any) -> None:
        self.world, self.path = world, path
        self.folder, self.studies = StudyFolder(path / "study"), MemoryStudies()
        self.seen: list[Progress] = []
        self.records: list[TrialRecord] = []
        spec = {
            "model": {"timm": "resnet18"},
            "data": {"synthetic": {"samples": world.samples}},
            "training": {"effective_batch_size": world.effective_batch_size},
            "budget": world.budget,
            "baseline": dict(world.baseline),
            "search": {knob: list(value) if isinstance(value, tuple) else value for knob, value in world.search},
            "stability": {"soak_steps": 10},
            "strategy": {"name": "auto"},
            **changes,
        }
        (path / "spec.yaml").write_text(yaml.safe_dump(spec))

    def search(self, on_trial: Any = None) -> SearchResult:
        clock = VirtualClock()
        return search(
            load_spec(self.path / "spec.yaml"),
            self.folder,
            listener=Listener(on_progress=self.seen.append, on_trial=on_trial or self.records.append),
            open_study=self.studies,
            start_backend=SimulatedBackend(self.world, clock, seed=1),
            clock=clock,
        )

    @property
    def study(self) -> optuna.Study:
        return self.studies.study(self.folder)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Searched, SearchResult]]:
    made = Searched(tmp_path_factory.mktemp("sides"), WORLD)
    yield made, made.search()


def of_sides(records: list[TrialRecord]) -> list[TrialRecord]:
    return [record for record in records if record.purpose is Purpose.SIDE]


def test_steps_are_measured_alone_and_most_configurations_never_as_a_whole(
    searched: tuple[Searched, SearchResult],
) -> None:
    made, result = searched
    sides = of_sides(made.records)
    trials = [record for record in made.records if record.optuna_trial is not None]
    assert len(sides) > len(trials)
    assert all(record.result.side and record.result.side_rate for record in sides)
    assert (result.best["search"]["sides"], result.best["search"]["trials"]) == (len(sides), len(trials))


def test_what_is_emitted_had_a_whole_trial_before_the_rounds(searched: tuple[Searched, SearchResult]) -> None:
    made, result = searched
    config = TrainConfig.from_dict(result.best["config"])
    first = next(record for record in made.records if record.purpose is Purpose.CONFIRM)
    whole = [record for record in made.records if record.result.config == config and record.optuna_trial is not None]
    assert whole
    assert whole[0].number < first.number
    assert result.best["stability"]["verdict"] == "stable"
    assert truth(WORLD, config) >= 0.97 * truth(WORLD, TrainConfig.from_dict(_best_known()))


def _best_known() -> dict[str, Any]:
    """Compute-bound: the largest batch in bf16 and channels_last, with processes to load."""
    best = TrainConfig(
        micro_batch_size=256,
        grad_accum_steps=1,
        amp_dtype="bf16",
        memory_format="channels_last",
        num_workers=8,
        prefetch_factor=2,
        pin_memory=True,
    )
    return best.to_dict()


def test_optunas_study_knows_whole_trials_only(searched: tuple[Searched, SearchResult]) -> None:
    made, _ = searched
    numbers = {record.optuna_trial for record in made.records if record.optuna_trial is not None}
    assert {trial.number for trial in made.study.trials} == numbers
    figures = {record.optuna_trial: record.result.rates for record in made.records if is_ok(record)}
    for trial in made.study.trials:
        rates = figures[trial.number]
        assert rates is not None
        assert trial.value == rates.sustained_per_s


def test_no_side_ever_leads(searched: tuple[Searched, SearchResult]) -> None:
    made, _ = searched
    whole = {record.result.config for record in made.records if record.optuna_trial is not None}
    assert {leader.config for progress in made.seen for leader in progress.leaders} <= whole
    assert all(
        running.samples_per_s is None
        for progress in made.seen
        for running in progress.running
        if running.purpose is Purpose.SIDE
    )
    assert any("alone takes" in progress.message for progress in made.seen)


def test_records_on_disk_say_which_side(searched: tuple[Searched, SearchResult]) -> None:
    made, _ = searched
    kept = {record.number: record for record in made.folder.read_trials()}
    for record in of_sides(made.records):
        assert kept[record.number].result.side == record.result.side
        assert kept[record.number].result.side_rate == record.result.side_rate
        assert not has_failed(record)
        assert not is_ok(record)


def test_the_report_shows_sides_as_what_they_are(searched: tuple[Searched, SearchResult]) -> None:
    made, result = searched
    reading = read_study(made.folder)
    page = report_page(reading)
    side = next(record for record in of_sides(made.records) if record.result.side_rate)
    assert side.result.side_rate is not None
    assert f"{side.result.side} alone: {words.rate(side.result.side_rate.per_s)}/s" in page
    assert "Nothing: every trial has a measurement." in page
    effort = result.best["search"]
    trials, sides = effort["trials"], effort["sides"]
    rest = effort["runs"] - trials - sides
    said = f"{trials} trials, {sides} measurements of one side and {rest} runs to confirm and test"
    assert words.runs(effort) == said
    assert said in page
    assert spent_s(reading)["lost to failures"] == 0.0
    assert {found.config for found in tried(reading).values()} <= {
        record.result.config for record in made.records if record.optuna_trial is not None
    }


def test_a_search_that_goes_on_knows_the_sides_that_it_had_measured(tmp_path: Path) -> None:
    made = Searched(tmp_path, WORLD)

    def stop(record: TrialRecord) -> None:
        made.records.append(record)
        if len(of_sides(made.records)) == 5:
            raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError, match="power"):
        made.search(stop)
    made.search()
    asked = Counter((record.result.config, record.result.side) for record in of_sides(made.folder.read_trials()))
    assert len(asked) > 5
    assert set(asked.values()) == {1}


def test_a_side_that_runs_out_of_memory_keeps_its_configuration_from_being_tried(tmp_path: Path) -> None:
    """More than 64 samples do not fit in bf16."""
    search_of = {**dict(WORLD.search), "micro_batch_size": (32, 64, 128, 256)}
    small = World(
        **{
            **WORLD.__dict__,
            "sample_memory_bytes": 3 << 30,
            "search": tuple(search_of.items()),
        }
    )
    made = Searched(tmp_path, small)
    result = made.search()
    failed = {record.result.config for record in of_sides(made.records) if record.result.status is TrialStatus.OOM}
    assert failed
    assert not failed & {record.result.config for record in made.records if record.optuna_trial is not None}
    assert result.best["config"]["micro_batch_size"] <= 64


def test_where_loading_and_training_compute_on_the_same_cores_there_are_no_sides(tmp_path: Path) -> None:
    made = Searched(tmp_path, worlds(CPU)["loader-bound by computing"])
    made.search()
    assert not of_sides(made.records)


def test_other_strategies_ask_for_none(tmp_path: Path) -> None:
    made = Searched(tmp_path, WORLD, strategy={"name": "random"})
    made.search()
    assert not of_sides(made.records)


def test_where_several_trials_run_at_a_time_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrialRunner, "runs_one_at_a_time", property(lambda _self: False))
    made = Searched(tmp_path, WORLD)
    made.search()
    assert not of_sides(made.records)


def test_a_side_and_the_next_trial_are_decided_by_the_same_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the model was fitted again for a side, of which nothing came, and then for the trial."""
    states, fit = Counter[Any](), AutoSampler._learn

    def learn(self: AutoSampler, trials: Any) -> Any:
        states[len(self._again), len(self._sides), sum(trial.state.is_finished() for trial in trials)] += 1
        return fit(self, trials)

    made = Searched(tmp_path, worlds(CPU)["loader-bound by waiting"])
    monkeypatch.setattr(AutoSampler, "_learn", learn)
    made.search()
    trials = [record for record in made.records if record.optuna_trial is not None]
    assert len(states) >= len(trials) > 3
    assert max(states.values()) <= 2, "one for what is next, and one for what is said of the model in best.yaml"
