"""What runs will cost: where most of them run in a process that has run others, such a run is what is planned with."""

from __future__ import annotations

from typing import Any

import pytest
from support.facts import cpu_facts

from autotune.config import TrainConfig
from autotune.records import Block, Purpose, TrialRecord, TrialResult, TrialStatus, WarmUp
from autotune.search.decide.costs import Costs
from autotune.search.policy import SHORTEST_RUN_S, SPARE

STEP_S, START_S, FIRST_S, END_S = 0.1, 1.0, 3.0, 0.2
"""In a new process; in one that has run others, a tenth of start and slow first step."""
BASELINE, OTHER = TrainConfig(micro_batch_size=8), TrainConfig(micro_batch_size=16)


def trial(number: int, config: TrainConfig = OTHER, *, runs_before: int = 0, wait_s: float = 0.0) -> TrialRecord:
    share = 0.1 if runs_before else 1.0
    first_step_s = STEP_S + share * FIRST_S + wait_s
    warm_up = WarmUp(
        steps=3,
        seconds=first_step_s + 2 * STEP_S,
        first_step_s=first_step_s,
        first_wait_s=wait_s,
        settled=True,
    )
    timed = Block(steps=10, samples=10 * config.effective_batch_size, seconds=10 * STEP_S, phases={})
    return TrialRecord(
        number=number,
        purpose=Purpose.SEARCH,
        optuna_trial=number,
        elapsed_s=0.0,
        started="2026-11-28T12:00:00+00:00",
        result=TrialResult(
            config=config,
            status=TrialStatus.OK,
            seed=0,
            blocks=(timed, timed),
            warm_up=warm_up,
            start_up_s=share * START_S,
            wall_s=share * START_S + warm_up.seconds + 20 * STEP_S + END_S,
            runs_before=runs_before,
        ),
        environment=cpu_facts(),
    )


def costs(*records: TrialRecord) -> Costs:
    return Costs(records)


def test_where_each_run_has_a_process_of_its_own_each_pays_for_it() -> None:
    known = costs(trial(0, BASELINE), trial(1), trial(2))
    assert known.start_s(OTHER) == pytest.approx(START_S + END_S + STEP_S + FIRST_S)
    assert known.new_process_s == 0.0, "as all do"


def test_where_most_runs_join_others_that_is_what_a_run_costs() -> None:
    known = costs(trial(0, BASELINE), trial(1, runs_before=1), trial(2, runs_before=2))
    assert known.start_s(OTHER) == pytest.approx(0.1 * START_S + END_S + STEP_S + 0.1 * FIRST_S)


def test_what_ran_in_a_new_process_will_cost_less_in_another(wait_s: float = 0.7) -> None:
    known = costs(trial(0, BASELINE, wait_s=wait_s), trial(1, runs_before=1), trial(2, runs_before=2))
    expected_s = 0.1 * START_S + END_S + STEP_S + 0.1 * FIRST_S + wait_s
    assert known.start_s(BASELINE) == pytest.approx(expected_s), "but for the data that it waited for"


def test_rounds_and_the_soak_pay_for_a_new_process_each() -> None:
    known = costs(trial(0, BASELINE), trial(1, runs_before=1), trial(2, runs_before=2))
    new_s = 0.9 * (START_S + FIRST_S)
    assert known.new_process_s == pytest.approx(new_s)
    runs_s = known.run_s(BASELINE, SHORTEST_RUN_S) + known.run_s(OTHER, SHORTEST_RUN_S)
    assert known.rounds_s([BASELINE, OTHER], 2) == pytest.approx(2 * SPARE * (new_s + runs_s))
    soak_s = SPARE * (new_s + known.start_s(OTHER) + 5 * known.busy_step_s(OTHER))
    assert known.soak_s(OTHER, 5) == pytest.approx(soak_s)


def test_the_runs_of_a_round_share_its_new_process() -> None:
    known = costs(trial(0, BASELINE), trial(1, runs_before=1), trial(2, runs_before=2))
    runs_s = known.run_s(BASELINE, 0.0) + known.run_s(OTHER, 0.0)
    assert known.fixed_s([BASELINE, OTHER]) == pytest.approx((known.new_process_s + runs_s) / 2)


def test_the_kind_of_process_is_that_of_the_last_trials() -> None:
    """One that was tried, and did not pay."""
    tried: list[Any] = [trial(0), trial(1, runs_before=1), *(trial(number) for number in range(2, 9))]
    assert costs(*tried).start_s(OTHER) == pytest.approx(START_S + END_S + STEP_S + FIRST_S)


def test_nothing_is_known_before_the_first_trial() -> None:
    assert costs().start_s(OTHER) == costs().new_process_s == 0.0
