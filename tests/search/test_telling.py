"""How Optuna is told: the same constraints on every trial, whatever happened to it."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState
from search.performance.test_model import SPACE
from support.facts import cpu_facts

from autotune.records import Block, Failure, TrialResult, TrialStatus
from autotune.search.strategies import STRATEGIES, Learning, StrategyContext
from autotune.search.telling import ask, sampler_of, tell


def result(status: TrialStatus) -> TrialResult:
    fine = status is TrialStatus.OK
    block = Block(steps=4, samples=64, seconds=0.5, phases={"forward_backward": 0.5})
    return TrialResult(
        config=SPACE.baseline,
        status=status,
        seed=0,
        blocks=(block, block, block) if fine else (),
        wall_s=2.0,
        failure=None if fine else Failure(reason="simulated"),
    )


def asked() -> tuple[optuna.Study, optuna.Trial]:
    context = StrategyContext(space=SPACE, facts=cpu_facts(), seed=0)
    sampler = sampler_of(STRATEGIES["random"], context)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    trial, _ = ask(study, sampler, SPACE)
    return study, trial


@pytest.mark.parametrize("status", [TrialStatus.OK, TrialStatus.OOM, TrialStatus.TIMEOUT])
def test_every_trial_has_the_same_constraints(status: TrialStatus) -> None:
    study, trial = asked()
    tell(study, trial, result(status), learning=Learning.WORST_VALUE, worst=3.0, violations=[-0.5, -0.25])
    told = study.trials[0]
    assert list(told.constraints) == ["stable", "constraint_0", "constraint_1"]
    assert told.value == (128.0 if status is TrialStatus.OK else pytest.approx(3.0))
    assert (max(told.constraints["stable"], told.constraints["constraint_0"]) <= 0) == (status is TrialStatus.OK)


def test_what_a_crash_left_half_told_is_completed() -> None:
    study, trial = asked()
    trial.set_constraint("stable", -1.0)
    tell(study, trial, result(TrialStatus.OK), learning=Learning.PRUNED, worst=0.0, violations=[-0.5])
    assert study.trials[0].constraints == {"stable": -1.0, "constraint_0": -0.5}


@pytest.mark.parametrize("learning", Learning)
def test_what_breaks_a_constraint_is_worth_less_than_anything_else(learning: Learning) -> None:
    study, trial = asked()
    tell(study, trial, result(TrialStatus.OK), learning=learning, worst=3.0, violations=[-0.5, 0.25])
    told = study.trials[0]
    assert told.value is not None
    assert told.value < 3.0
    assert told.constraints["constraint_1"] == 0.25
    assert told.user_attrs["samples_per_s"] == 128.0


@pytest.mark.parametrize("learning", Learning)
@pytest.mark.parametrize("status", [TrialStatus.OK, TrialStatus.OOM])
def test_with_nothing_to_be_worse_than_it_has_no_value(learning: Learning, status: TrialStatus) -> None:
    study, trial = asked()
    tell(study, trial, result(status), learning=learning, worst=None, violations=[0.25])
    assert study.trials[0].state is TrialState.PRUNED
    assert study.trials[0].value is None


def test_a_failure_has_its_reason() -> None:
    study, trial = asked()
    tell(study, trial, result(TrialStatus.OOM), learning=Learning.PRUNED, worst=3.0)
    attributes = study.trials[0].user_attrs
    assert (attributes["status"], attributes["reason"]) == ("oom", "simulated")
    assert "samples_per_s" not in attributes
