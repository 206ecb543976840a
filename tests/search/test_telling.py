"""How Optuna is told: the same constraints on every trial, whatever happened to it."""

from __future__ import annotations

import optuna
import pytest
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
    tell(study, trial, result(status), learning=Learning.WORST_VALUE, worst=3.0, violations=[-0.5, 0.25])
    told = study.trials[0]
    assert list(told.constraints) == ["stable", "constraint_0", "constraint_1"]
    assert told.value == (128.0 if status is TrialStatus.OK else 3.0)
    assert (max(told.constraints["stable"], told.constraints["constraint_0"]) <= 0) == (status is TrialStatus.OK)


def test_what_a_crash_left_half_told_is_completed() -> None:
    study, trial = asked()
    trial.set_constraint("stable", -1.0)
    tell(study, trial, result(TrialStatus.OK), learning=Learning.PRUNED, worst=0.0, violations=[-0.5])
    assert study.trials[0].constraints == {"stable": -1.0, "constraint_0": -0.5}
