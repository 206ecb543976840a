"""`strategy: auto` as an Optuna sampler: in Optuna's own suite, with its storages, and against machines in formulas."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import FrozenTrial, TrialState
from search.performance.test_model import SPACE, observed
from support import worlds
from support.facts import cpu_facts

from autotune.bench.replay import bench_of
from autotune.bench.scores import run_of
from autotune.bench.session import run_search
from autotune.config import TrainConfig
from autotune.search.build_space import build_space
from autotune.search.performance import OBSERVATION, PREDICTED, Observation, PerformanceModel, Prediction
from autotune.search.performance.proposal import _worth_the_risk
from autotune.search.space import Space
from autotune.search.strategies import STRATEGIES, StrategyContext
from autotune.search.strategies.auto import AutoSampler, _most_telling
from autotune.search.telling import NothingWorthTrying, ask, sampler_of
from autotune.spec import parse_spec

optuna.logging.set_verbosity(optuna.logging.ERROR)


def auto(seed: int = 0, **options: Any) -> AutoSampler:
    return AutoSampler(SPACE, cpu_facts(), GPSampler(seed=seed, n_startup_trials=5), seed=seed, **options)


class TestOptunasOwnSuite(BasicSamplerTestCase, RelativeSamplerTestCase):
    """Over parameters that are no knobs it has to be as good a citizen as its fallback; TPE is cheap to ask."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: AutoSampler(SPACE, cpu_facts(), TPESampler(seed=0, n_startup_trials=0), seed=0)


def test_over_parameters_that_are_no_knobs_it_asks_what_its_fallback_would() -> None:
    """With the fallback that it has outside of tests."""

    def asked(sampler: BaseSampler) -> list[dict[str, float]]:
        study = optuna.create_study(sampler=sampler)
        study.optimize(lambda trial: trial.suggest_float("x", -3, 3) ** 2 + trial.suggest_int("y", 0, 5), n_trials=6)
        return [trial.params for trial in study.trials]

    def gp() -> GPSampler:
        return GPSampler(seed=0, n_startup_trials=2)

    assert asked(AutoSampler(SPACE, cpu_facts(), gp(), seed=0)) == asked(gp())


def step(
    study: optuna.Study, space: Space = SPACE, world: worlds.World = worlds.cpu, limit: float = 1.2 * worlds.GIB
) -> TrainConfig:
    """Ask, run on `world`, tell, as a study does."""
    trial = study.ask(dict(space.distributions))
    config = space.config_at(trial.params)
    fits = world(config).memory_bytes <= limit
    seen = observed(config, world) if fits else Observation(status="oom", wall_s=1.0, overhead_s=1.0)
    trial.set_user_attr(OBSERVATION, seen.to_dict())
    trial.set_constraint("stable", -1.0 if fits else 1.0)
    study.tell(trial, seen.samples_per_s if seen.samples_per_s is not None else 1.0)
    return config


def begun(sampler: BaseSampler, storage: Any = None, world: worlds.World = worlds.cpu) -> optuna.Study:
    study = optuna.create_study(sampler=sampler, direction="maximize", storage=storage)
    study.enqueue_trial(SPACE.indices_of(SPACE.baseline))
    step(study, world=world)
    return study


def fastest(world: worlds.World = worlds.cpu, limit: float = 1.2 * worlds.GIB) -> float:
    fitting = [config for config in SPACE.configurations() if world(config).memory_bytes <= limit]
    return max(config.effective_batch_size / world(config).step_s(config) for config in fitting)


def reached(study: optuna.Study) -> float:
    return max(trial.value for trial in study.trials if trial.value is not None)


def test_ten_trials_find_the_best_of_hundreds() -> None:
    study = begun(auto())
    for _ in range(9):
        step(study)
    assert reached(study) > 0.98 * fastest()


def test_it_works_with_the_rdb_storage_and_goes_on_after_a_resume(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = begun(auto(), url)
    for _ in range(4):
        step(study)
    again = optuna.load_study(study_name=study.study_name, storage=url, sampler=auto())
    before = {SPACE.config_at(trial.params) for trial in again.trials}
    assert step(again) not in before
    assert again.sampler.model is not None


def test_trials_in_flight_are_not_proposed_again() -> None:
    study = begun(auto())
    step(study)
    running = [SPACE.config_at(study.ask(dict(SPACE.distributions)).params) for _ in range(6)]
    assert len(set(running)) == 6


def test_with_many_in_flight_one_fit_serves_several(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = 0
    fit = PerformanceModel.fit

    def counted(*args: Any, **others: Any) -> None:
        nonlocal fits
        fits += 1
        fit(*args, **others)

    monkeypatch.setattr(PerformanceModel, "fit", counted)
    study = begun(auto())
    running = [SPACE.config_at(study.ask(dict(SPACE.distributions)).params) for _ in range(64)]
    assert len(set(running)) == 64
    assert 1 < fits < 24


def test_one_at_a_time_each_is_chosen_with_the_last_ones_figure() -> None:
    study = begun(auto())
    for _ in range(3):
        told = len(study.trials)
        step(study)
        assert cast(AutoSampler, study.sampler)._plan.told == told


def test_predictions_from_the_same_knowledge_count_once() -> None:
    """Sixty that knew of the baseline alone, and are all wrong for one reason, are no reason to give up."""
    study = begun(auto())
    sampler = cast(AutoSampler, study.sampler)
    asked = [study.ask(dict(SPACE.distributions)) for _ in range(40)]
    for trial in asked:
        config = SPACE.config_at(trial.params)
        trial.set_user_attr(PREDICTED, {"samples_per_s": 1.0, "low": 0.9, "high": 1.1})
        trial.set_user_attr(OBSERVATION, observed(config).to_dict())
        trial.set_constraint("stable", -1.0)
        study.tell(trial, 1.0)
    study.ask(dict(SPACE.distributions))
    assert sampler.gave_up is None


def test_predictions_that_are_wrong_again_and_again_are() -> None:
    study = begun(auto())
    sampler = cast(AutoSampler, study.sampler)
    for _ in range(27):
        trial = study.ask(dict(SPACE.distributions))
        trial.set_user_attr(PREDICTED, {"samples_per_s": 1.0, "low": 0.9, "high": 1.1})
        trial.set_user_attr(OBSERVATION, observed(SPACE.config_at(trial.params)).to_dict())
        trial.set_constraint("stable", -1.0)
        study.tell(trial, 1.0)
    assert sampler.gave_up is not None
    assert "25 predictions" in sampler.gave_up


def test_of_very_many_trials_the_fastest_and_a_sample_of_the_others_are_fitted() -> None:
    speeds: list[float | None] = [float(number) for number in range(1000)]
    speeds[:40] = [None] * 40
    seen = [Observation(status="?", wall_s=1.0, overhead_s=1.0, samples_per_s=speed) for speed in speeds]
    kept = _most_telling(seen)
    assert kept == sorted(set(kept))
    assert set(range(872, 1000)) <= set(kept)
    assert 200 < len(kept) <= 256
    assert 4 <= sum(place < 40 for place in kept) <= 8
    assert _most_telling(seen[:256]) == list(range(256))


def test_no_more_than_two_trials_run_out_of_memory() -> None:
    study = begun(auto())
    for _ in range(40):
        step(study)
    failed = [trial for trial in study.trials if trial.constraints["stable"] > 0]
    assert len(failed) <= 2


def test_time_that_is_not_left_is_not_spent() -> None:
    """Six seconds have no room for steps of two, of which a trial has five."""
    study = begun(auto(seconds_left=lambda: 6.0))
    for _ in range(12):
        config = step(study)
        truth = worlds.cpu(config)
        assert 5 * truth.step_s(config) < 9.0


@pytest.mark.parametrize("status", ["crashed", "diverged", "timeout", "failed"])
def test_what_breaks_down_is_not_tried_again_and_again(status: str) -> None:
    """Every bf16 trial breaks: the model learns it, though none of them has a figure."""
    study = begun(auto())
    broken = 0
    for _ in range(20):
        trial = study.ask(dict(SPACE.distributions))
        config = SPACE.config_at(trial.params)
        works = config.amp_dtype == "none"
        broken += not works
        seen = observed(config) if works else Observation(status=status, wall_s=2.0, overhead_s=2.0)
        trial.set_user_attr(OBSERVATION, seen.to_dict())
        trial.set_constraint("stable", -1.0 if works else 1.0)
        study.tell(trial, seen.samples_per_s if seen.samples_per_s is not None else 1.0)
    assert broken <= 5


def test_a_model_that_explains_nothing_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    world = worlds.with_interactions(worlds.cpu, 2.0)
    sampler = auto(least_skill=0.5, distrust_after=12)
    study = begun(sampler, world=world)
    with caplog.at_level("INFO"):
        for _ in range(14):
            step(study, world=world)
    assert sampler.gave_up is not None
    assert "%" in sampler.gave_up
    assert "GPSampler took over" in caplog.text
    assert all(trial.params.keys() == SPACE.distributions.keys() for trial in study.trials)


def test_where_only_risks_are_left_there_is_nothing_to_ask_for() -> None:
    """Everything that fits has been measured; what does not has shown itself twice."""
    searched = worlds.CPU_SPEC["search"] | {"grad_accum_steps": [1, 2], "num_threads": 4}
    space = build_space(parse_spec(worlds.CPU_SPEC | {"search": searched}, "."), cpu_facts())
    strategy = STRATEGIES["auto"]
    sampler = sampler_of(strategy, StrategyContext(space=space, facts=cpu_facts(), seed=0))
    study = optuna.create_study(sampler=sampler, direction="maximize")
    tried, failed = set(), 0
    with pytest.raises(NothingWorthTrying):
        while True:
            trial, config = ask(study, sampler, space)
            fits = worlds.cpu(config).memory_bytes <= 1.2 * worlds.GIB
            seen = observed(config) if fits else Observation(status="oom", wall_s=1.0, overhead_s=1.0)
            trial.set_user_attr(OBSERVATION, seen.to_dict())
            trial.set_constraint("stable", -1.0 if fits else 1.0)
            study.tell(trial, seen.samples_per_s if fits else 1.0)
            tried.add(config)
            failed += not fits
    fitting = {config for config in space.configurations() if worlds.cpu(config).memory_bytes <= 1.2 * worlds.GIB}
    assert len(fitting - tried) < 0.1 * len(fitting)
    assert failed <= 2
    assert TrialState.FAIL not in {trial.state for trial in study.trials}, "none was begun"
    wanted = next(config for config in space.configurations() if config not in tried)
    sampler.planned.append(wanted)
    assert ask(study, sampler, space)[1] == wanted, "what is planned is asked for all the same"


class Greedy(RandomSampler):
    """A fallback that proposes the baseline with the largest micro-batch, again and again."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(SPACE.distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return SPACE.baseline_indices | {"micro_batch_size": SPACE.distributions["micro_batch_size"].high}


def test_given_up_it_still_keeps_away_from_what_ran_out_of_memory() -> None:
    sampler = AutoSampler(SPACE, cpu_facts(), Greedy(), seed=0)
    sampler.gave_up = "for the test"
    study = begun(sampler)
    for _ in range(20):
        step(study)
    assert 1 <= sum(trial.constraints["stable"] > 0 for trial in study.trials) <= 3


def test_a_model_that_holds_is_not_given_up() -> None:
    sampler = auto()
    study = begun(sampler)
    for _ in range(30):
        step(study)
    assert sampler.gave_up is None
    assert len(sampler.learned(study)["effects"]) > 3


def test_before_any_figure_it_is_its_fallback() -> None:
    sampler = auto()
    study = optuna.create_study(sampler=sampler, direction="maximize")
    trial = study.ask(dict(SPACE.distributions))
    assert trial.params.keys() == SPACE.distributions.keys()
    assert sampler.model is None
    assert sampler.prediction(SPACE.baseline) is None
    assert sampler.learned(study) == {}


def test_a_trial_of_another_thread_does_not_change_the_space_of_this_one() -> None:
    """Between the two questions that Optuna asks of a sampler, the first trial of a foreign study ends."""
    sampler = AutoSampler(SPACE, cpu_facts(), TPESampler(seed=0, n_startup_trials=0), seed=0)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    waiting = study.ask()
    study.tell(waiting, waiting.suggest_float("x", 0, 1))
    running = study.get_trials(deepcopy=False)[0]
    assert sampler.sample_relative(study, running, dict(SPACE.distributions)).keys() <= SPACE.distributions.keys()


def test_trials_of_a_foreign_study_are_left_alone() -> None:
    study = optuna.create_study(sampler=auto(), direction="maximize")
    for _ in range(8):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0, 1))
    assert all(0 <= trial.params["x"] <= 1 for trial in study.trials)


def test_a_constraint_on_a_measure_steers_it() -> None:
    """Nothing above 0.8 GiB may be emitted: what is tried in the end is mostly below."""
    limit = 0.8 * worlds.GIB

    def constrained_step() -> float:
        trial = study.ask(dict(SPACE.distributions))
        config = SPACE.config_at(trial.params)
        seen = observed(config)
        trial.set_user_attr(OBSERVATION, seen.to_dict())
        trial.set_constraint("stable", -1.0)
        trial.set_constraint("constraint_0", worlds.cpu(config).memory_bytes / limit - 1)
        study.tell(trial, seen.samples_per_s)
        return worlds.cpu(config).memory_bytes

    study = optuna.create_study(sampler=auto(), direction="maximize")
    study.enqueue_trial(SPACE.indices_of(SPACE.baseline))
    used = [constrained_step() for _ in range(16)]
    assert sum(memory > limit for memory in used[8:]) <= 2


def test_a_study_keeps_what_was_predicted_with_each_trial() -> None:
    strategy = STRATEGIES["auto"]
    sampler = sampler_of(strategy, StrategyContext(space=SPACE, facts=cpu_facts(), seed=0))
    study = optuna.create_study(sampler=sampler, direction="maximize")
    first, config = ask(study, sampler, SPACE)
    assert config == SPACE.baseline
    assert PREDICTED not in first.user_attrs
    first.set_user_attr(OBSERVATION, observed(config).to_dict())
    first.set_constraint("stable", -1.0)
    study.tell(first, 100.0)
    second, config = ask(study, sampler, SPACE)
    expected = second.user_attrs[PREDICTED]
    assert expected["low"] < expected["samples_per_s"] < expected["high"]


def test_where_the_physics_is_broken_it_still_gets_near_the_best() -> None:
    """`benchmarks/broken_physics.py` compares with GPSampler, in more worlds."""
    bench = bench_of(worlds.BROKEN["random interactions"](), "broken")
    steps = run_search(bench, "auto", seed=0, budget_s=90.0)
    run = run_of(bench, steps, strategy="auto", seed=0, budget_s=90.0)
    assert run.found_over_best > 0.9


def test_once_two_have_run_out_a_risk_is_taken_only_for_a_greater_chance() -> None:
    """Four in a hundred may run out; what promises less than that to be faster is left alone."""

    class Memory:
        failures = 1
        least_probability = 0.6

    class Model:
        memory = Memory()

    fits = np.array([1.0, 0.96, 0.96, 0.5])
    predicted = Prediction(np.array([-9.0, -3.0, -1.0, 5.0]), np.ones(4), np.ones(4))
    model = cast(PerformanceModel, Model())
    assert _worth_the_risk(model, fits, predicted, 0.0).tolist() == [True, True, True, False]
    Memory.failures = 2
    assert _worth_the_risk(model, fits, predicted, 0.0).tolist() == [True, False, True, False]


@pytest.mark.parametrize("violation", [-1.0, 1.0])
def test_what_is_left_to_gain_is_told_from_six_trials_on_that_meet_the_constraints(violation: float) -> None:
    space = build_space(parse_spec(worlds.CPU_SPEC, "."), cpu_facts())
    sampler = sampler_of(STRATEGIES["auto"], StrategyContext(space=space, facts=cpu_facts(), seed=0))
    study = optuna.create_study(sampler=sampler, direction="maximize")
    told = []
    for _ in range(8):
        trial, config = ask(study, sampler, space)
        trial.set_user_attr(OBSERVATION, observed(config).to_dict())
        trial.set_constraint("stable", -1.0)
        trial.set_constraint("constraint_0", violation)
        study.tell(trial, observed(config).samples_per_s)
        sampler.has_nothing_worth_trying(study)
        told.append(sampler._inner._knows_enough)
    assert told == [False] * 5 + [violation < 0] * 3
    assert violation < 0 or math.isinf(sampler.left_to_gain)
    sampler._inner._knows_enough, sampler._inner.gave_up = True, "it predicts badly"
    assert math.isinf(sampler.left_to_gain)


def times(seen: Observation, speed: float) -> Observation:
    """The same run, so many times as fast."""
    assert seen.samples_per_s is not None
    return dataclasses.replace(
        seen,
        samples_per_s=seen.samples_per_s * speed,
        compute_s=seen.compute_s / speed,
        optimizer_s=seen.optimizer_s / speed,
    )


def test_further_runs_that_differ_leave_more_to_gain() -> None:
    """Runs of the confirmation: the trials were known less well than it had seemed."""
    sampler = auto()
    study = begun(sampler)
    tried = [step(study) for _ in range(11)]
    sampler.look_ahead(study)
    seemed, noise = sampler.left_to_gain, sampler._model.noise
    for config in tried[-4:]:
        for speed in (0.8, 1.25):
            sampler.learn_again(config, times(observed(config), speed))
    sampler.look_ahead(study)
    assert sampler._model.noise > max(0.1, noise)
    assert sampler.left_to_gain > seemed


def test_further_runs_count_with_the_trial_of_their_configuration() -> None:
    """The best was lucky by half: once it has run again, another is."""
    sampler = auto()
    study = begun(sampler)
    tried = [step(study) for _ in range(11)]
    sampler.look_ahead(study)
    model = sampler._model
    best, second = sorted(tried, key=model.likely)[:-3:-1]
    for _ in range(6):
        sampler.learn_again(best, times(observed(best), 0.6))
    sampler.look_ahead(study)
    assert model.likely(best) < model.likely(second)
