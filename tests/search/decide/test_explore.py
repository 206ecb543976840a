"""The search's share of the budget: each rule with the smallest study that it decides."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from support.deciding import BASE, BF16, BF16_TWO, FOUR, TWO, beginning, in_rounds, ran, searched, session_at, so_far

from autotune.config import TrainConfig
from autotune.errors import EnvironmentFailure, NoStableConfiguration
from autotune.records import OptimizerSteps, Purpose, Side, TrialRecord, TrialStatus
from autotune.search.budget import BudgetNow
from autotune.search.decide.actions import Confirm, Measure, Repeat, Wait
from autotune.search.decide.decide import decide
from autotune.search.decide.explore import (
    baseline_again,
    last_trial,
    needed_for_confirming_s,
    next_trial,
    search_trial,
    side_alone,
    trial_length,
)
from autotune.search.decide.session import Exploring, InRound
from autotune.search.decide.study import StudySoFar
from autotune.search.performance.sides import Aside
from autotune.search.policy import (
    FOR_REPEAT,
    KNOWN_TO,
    LAST_TRIALS,
    REPEAT_OF_TRIAL,
    SHORTEST_SIDE_S,
    SHORTEST_TRIAL_S,
    SIDE_SHARES,
    SMALLEST_USEFUL_TRIAL_S,
)
from autotune.search.racing import hopeless_below, restart_spread
from autotune.search.smaller_baseline import BaselineTooLarge

BOTH = searched({BASE: 1000.0, TWO: 1500.0})
START_UP_S = BOTH[0].result.start_up_s or 0.0
USELESS = BF16_TWO
"""bf16 that gains nothing beside loader processes that do."""
WITH_USELESS = searched({BASE: 1000.0, BF16: 1000.0, USELESS: 1501.0, FOUR: 1400.0})


def with_search_s(study: StudySoFar, seconds: float) -> StudySoFar:
    """The same with so many seconds of the search left."""
    budget = study.budget
    elapsed_s = budget.search_remaining_s + budget.elapsed_s - seconds
    return dataclasses.replace(study, budget=dataclasses.replace(budget, elapsed_s=elapsed_s))


def test_the_baseline_is_measured_first() -> None:
    study = so_far()
    decision = decide(study, beginning(study))
    assert decision.action == Measure()
    running = dataclasses.replace(study, in_flight=1)
    assert isinstance(decide(running, decision.session).action, Wait)
    trial = search_trial(study, BASE)
    assert (trial.purpose, trial.patience_s, trial.request.hopeless_below) == (Purpose.BASELINE, None, None)
    assert trial.request.time_limit_s == study.budget.trial_s
    assert trial.deadline_s == study.budget.baseline_deadline_s()


@pytest.mark.parametrize(("left_s", "enough"), [(SMALLEST_USEFUL_TRIAL_S, True), (0.99, False)])
def test_a_budget_without_time_for_the_baseline_is_said_to_be_spent(left_s: float, enough: bool) -> None:
    study = so_far(left_s=left_s)
    if enough:
        assert decide(study, beginning(study)).action == Measure()
        return
    with pytest.raises(NoStableConfiguration, match=r"ended before the baseline was measured: .*use at least 20m"):
        decide(study, beginning(study))


def test_a_baseline_that_was_not_done_in_time_is_no_fault_of_the_code() -> None:
    study = so_far()
    begun = decide(study, beginning(study)).session
    message = r"not done after \d+ s, which is what the budget of 5m left it\. Use at least 10m\. Record: trials/0000"
    with pytest.raises(NoStableConfiguration, match=message) as caught:
        decide(so_far([ran(BASE, TrialStatus.TIMEOUT, Purpose.BASELINE)]), begun)
    assert "your training code" not in str(caught.value)


def test_a_baseline_that_was_lost_is_the_machines_fault() -> None:
    study = so_far()
    begun = decide(study, beginning(study)).session
    with pytest.raises(EnvironmentFailure, match="machine was lost"):
        decide(study, begun)


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (TrialStatus.DIVERGED, "lower training.optimizer.lr"),
        (TrialStatus.CRASHED, "fix the model, data or loss"),
    ],
)
def test_a_baseline_that_fails_ends_the_study_with_advice(status: TrialStatus, advice: str) -> None:
    study = so_far()
    begun = decide(study, beginning(study)).session
    with pytest.raises(
        NoStableConfiguration, match=rf"fails with the baseline settings \({status}\).*{advice}.*trials/0000"
    ):
        decide(so_far([ran(BASE, status, Purpose.BASELINE)]), begun)


def test_a_baseline_that_does_not_fit_may_be_stepped_down() -> None:
    study = so_far()
    begun = decide(study, beginning(study)).session
    with pytest.raises(BaselineTooLarge, match=r"\(oom\)"):
        decide(so_far([ran(BASE, TrialStatus.OOM, Purpose.BASELINE)]), begun)


def test_a_baseline_that_did_not_fit_costs_the_next_one_no_repeat() -> None:
    too_large = ran(BASE.replace(micro_batch_size=64, grad_accum_steps=2), TrialStatus.OOM, Purpose.BASELINE)
    assert baseline_again(so_far([too_large, *ALONE])) is not None


def test_a_baseline_that_failed_in_an_earlier_session_gets_another_trial() -> None:
    study = so_far([ran(BASE, TrialStatus.CRASHED, Purpose.BASELINE)])
    assert decide(study, beginning(study)).action == Measure()


def test_a_baseline_that_does_not_learn_ends_the_study() -> None:
    rising = OptimizerSteps(losses=[1.0 + step for step in range(20)], samples=[128] * 20, skipped=[False] * 20)
    study = so_far([ran(BASE, 1000.0, Purpose.BASELINE, steps=rising)])
    with pytest.raises(NoStableConfiguration, match="the loss rises with the baseline settings"):
        decide(study, beginning(study))


ALONE = searched({BASE: 1000.0})


def test_after_its_trial_the_baseline_runs_once_more() -> None:
    study = so_far(ALONE)
    decision = decide(study, beginning(study))
    assert isinstance(decision.action, Repeat)
    request = decision.action.request
    assert (request.config, request.seed, request.in_any_process) == (BASE, ALONE[0].result.seed, True)
    assert request.time_limit_s == REPEAT_OF_TRIAL * study.budget.trial_s
    assert decision.action.deadline_s < study.budget.search_remaining_s
    for rate in (1000.0, TrialStatus.CRASHED):
        again = so_far([*ALONE, ran(BASE, rate, Purpose.REPEAT)])
        assert decide(again, decision.session).action == Measure(or_side=True), "once, whatever came of it"


def test_not_where_it_would_cost_too_much_nor_in_a_study_that_goes_on() -> None:
    study = so_far(ALONE)
    assert baseline_again(so_far(BOTH)) is None
    assert baseline_again(with_search_s(study, 3.0)) is None, "there is no time for it"
    spare_s = FOR_REPEAT * study.budget.total_s - study.costs.run_s(BASE, REPEAT_OF_TRIAL * study.budget.trial_s)
    wall_s = ALONE[0].result.wall_s
    for more_s, runs in ((spare_s - 0.1, True), (spare_s + 0.1, False)):
        slow_start = so_far([ran(BASE, 1000.0, Purpose.BASELINE, wall_s=wall_s + more_s)])
        assert (baseline_again(slow_start) is not None) is runs


def uneven(record: TrialRecord) -> TrialRecord:
    """Every other block takes twice as long as the next: a run has to be long to know its rate."""
    blocks = tuple(
        block.model_copy(update={"seconds": block.seconds * (4 / 3 if number % 2 else 2 / 3)})
        for number, block in enumerate(record.result.blocks)
    )
    return record.model_copy(update={"result": record.result.model_copy(update={"blocks": blocks})})


def test_trials_are_no_longer_than_tells_anything() -> None:
    def twice(rate: float, purpose: Purpose = Purpose.REPEAT) -> StudySoFar:
        return so_far([uneven(ran(BASE, 1000.0, Purpose.BASELINE)), uneven(ran(BASE, rate, purpose))])

    usual_s = so_far().budget.trial_s
    assert trial_length(so_far(ALONE)) == (usual_s, KNOWN_TO)
    assert trial_length(twice(1000.0, Purpose.PROBE)) == (usual_s, KNOWN_TO), "a watched run differs by more than noise"
    long_s, well = trial_length(twice(1010.0))
    short_s, less_well = trial_length(twice(1500.0))
    assert SHORTEST_TRIAL_S <= short_s < long_s <= usual_s
    assert less_well > max(well, 2 * KNOWN_TO)
    trial = search_trial(twice(1500.0), TWO)
    assert (trial.request.time_limit_s, trial.request.target_relative_error) == (short_s, less_well)


def test_the_strategy_proposes_while_there_is_room_and_then_its_trials_are_waited_for() -> None:
    study = so_far(BOTH)
    assert decide(study, beginning(study)).action == Measure(or_side=True)
    full = dataclasses.replace(study, has_room=False, in_flight=1)
    assert isinstance(decide(full, beginning(full)).action, Wait)
    beside = dataclasses.replace(study, in_flight=1)
    assert decide(beside, beginning(beside)).action == Measure(or_side=True)


@pytest.mark.parametrize("over", [{"exhausted": True}, {"nothing_worth_trying": True}])
def test_where_nothing_is_left_the_rounds_begin_once_all_trials_have_ended(over: dict[str, bool]) -> None:
    study = dataclasses.replace(so_far(BOTH), **over)
    flying = dataclasses.replace(study, in_flight=1)
    assert isinstance(decide(flying, beginning(flying)).action, Wait)
    decision = decide(study, beginning(study))
    assert isinstance(decision.action, Confirm)
    assert decision.session.confirmation is not None
    assert decision.session.confirmation.finalists.now == (TWO,)


@pytest.mark.parametrize(("more_s", "measures"), [(0.01, True), (-0.01, False)])
def test_no_trial_begins_that_would_not_get_through_its_warm_up(more_s: float, measures: bool) -> None:
    study = with_search_s(so_far(BOTH), START_UP_S + SMALLEST_USEFUL_TRIAL_S + more_s)
    assert (next_trial(study, beginning(study)) is not None) is measures


@pytest.mark.parametrize(("more_s", "measures"), [(0.1, True), (-0.1, False)])
def test_no_trial_begins_whose_steps_take_longer_than_there_is_time(more_s: float, measures: bool) -> None:
    """Four steps of 2 s; a trial may run on into the confirmation for as long as a trial trains."""
    study = so_far([ran(BASE, 64.0, Purpose.BASELINE), ran(TWO, 60.0)])
    needed_s = study.costs.run_s(BASE, SMALLEST_USEFUL_TRIAL_S)
    study = with_search_s(study, needed_s - study.budget.trial_s + more_s)
    assert (next_trial(study, beginning(study)) is not None) is measures


def test_one_may_be_much_faster_than_a_slow_baseline() -> None:
    slow = so_far([ran(BASE, 6.0, Purpose.BASELINE)])
    study = with_search_s(slow, slow.costs.start_s(BASE) - slow.budget.trial_s + 0.1)
    assert study.costs.run_s(BASE, SMALLEST_USEFUL_TRIAL_S) > study.budget.trial_deadline_s(1e9)
    assert next_trial(study, beginning(study)) is not None


def test_a_trial_has_what_is_left_of_the_search_after_its_start() -> None:
    study = so_far(BOTH)
    assert search_trial(study, FOUR).request.time_limit_s == study.budget.trial_s
    late = with_search_s(study, START_UP_S + 2.0)
    assert search_trial(late, FOUR).request.time_limit_s == pytest.approx(2.0)


def test_a_trial_is_killed_after_what_the_baseline_took_or_soon_after_the_searchs_end() -> None:
    study = so_far(BOTH)
    trial = search_trial(study, FOUR)
    patience_s = study.budget.patience_s(BOTH[0].result.wall_s, compiles=False)
    assert trial.patience_s == trial.deadline_s == patience_s
    assert search_trial(study, FOUR.replace(compile="default")).patience_s == study.budget.patience_s(
        BOTH[0].result.wall_s, compiles=True
    )
    late = with_search_s(study, 2.0)
    assert search_trial(late, FOUR).deadline_s == late.budget.trial_deadline_s(patience_s) < patience_s


def test_a_trial_ends_once_it_cannot_be_as_fast_as_the_fastest() -> None:
    study = so_far(BOTH)
    floor = hopeless_below(study.measured[0], restart_spread(study.records))
    assert search_trial(study, FOUR).request.hopeless_below == floor


def test_the_experts_seeds_are_called_so() -> None:
    study = so_far(BOTH, seeds=(BASE, FOUR))
    assert search_trial(study, FOUR).purpose is Purpose.SEED
    assert search_trial(study, BF16).purpose is Purpose.SEARCH


def test_the_last_trials_are_of_the_best_without_what_may_gain_nothing() -> None:
    study = so_far(WITH_USELESS)
    assert study.measured[0].result.config == USELESS
    assert last_trial(study, beginning(study)) == TWO


@pytest.mark.parametrize(
    "known",
    [
        pytest.param({"seeds": (BASE, TWO)}, id="planned by the expert"),
        pytest.param({"records": [*WITH_USELESS, ran(TWO, TrialStatus.CRASHED)]}, id="tried"),
        pytest.param({"records": []}, id="nothing to simplify"),
    ],
)
def test_and_only_where_that_is_new(known: dict[str, Any]) -> None:
    study = so_far(**{"records": WITH_USELESS, **known})
    assert last_trial(study, beginning(study)) is None


def test_what_was_planned_in_this_session_is_not_planned_again() -> None:
    study = so_far(WITH_USELESS)
    assert last_trial(study, dataclasses.replace(beginning(study), planned=(TWO,))) is None


def test_they_come_near_the_end_of_the_search_and_not_before() -> None:
    study = so_far(WITH_USELESS)
    assert next_trial(study, beginning(study)) == Measure(or_side=True)
    walls_s = sorted(record.result.wall_s for record in WITH_USELESS)
    end_s = LAST_TRIALS * (walls_s[1] + walls_s[2]) / 2
    assert next_trial(with_search_s(study, end_s + 0.01), beginning(study)) == Measure(or_side=True)
    assert next_trial(with_search_s(study, end_s - 0.01), beginning(study)) == Measure(planned=TWO)


def test_they_come_where_the_strategy_knows_of_nothing_worth_a_trial_and_not_for_ever() -> None:
    study = so_far(WITH_USELESS, nothing_worth_trying=True)
    decision = decide(study, beginning(study))
    assert decision.action == Measure(planned=TWO)
    assert (decision.session.planned, decision.session.last_trials) == ((TWO,), 1)
    enough = dataclasses.replace(beginning(study), last_trials=LAST_TRIALS)
    assert next_trial(study, enough) is None
    assert next_trial(study, dataclasses.replace(enough, last_trials=LAST_TRIALS - 1)) == Measure(planned=TWO)


def test_those_near_the_end_are_not_counted() -> None:
    study = with_search_s(so_far(WITH_USELESS), 3.0)
    decision = decide(study, beginning(study))
    assert decision.action == Measure(planned=TWO)
    assert (decision.session.planned, decision.session.last_trials) == ((TWO,), 0)


def test_what_stands_changes_with_the_best_and_only_with_it() -> None:
    before = so_far(BOTH[:1])
    session = beginning(before)
    slower = so_far([*BOTH[:1], ran(FOUR, 900.0)])
    assert decide(slower, session).stands is None
    after = decide(so_far(BOTH), session)
    assert after.stands is not None
    assert (after.stands.config, after.stands.word) == (TWO, "unconfirmed")
    assert after.stands.speedup.ratio.value == pytest.approx(1.5)
    assert decide(so_far(BOTH), after.session).stands is None


def test_what_stands_meets_the_specs_constraints() -> None:
    fast = ran(FOUR, 2000.0)
    constrained = so_far([*BOTH, fast], sections={"constraints": ["num_workers <= 2"]})
    stands = decide(constrained, dataclasses.replace(beginning(constrained), stage=Exploring(since=0, best=0))).stands
    assert stands is not None
    assert stands.config == TWO


def finalists_after(study: StudySoFar, since: int) -> tuple[TrainConfig, ...]:
    session = session_at(study, Exploring(since=since, best=study.measured[0].number), FOUR)
    confirmation = decide(dataclasses.replace(study, exhausted=True), session).session.confirmation
    assert confirmation is not None
    return confirmation.finalists.now


def test_finalists_are_chosen_anew_after_further_trials_and_only_then() -> None:
    study = so_far([*searched({BASE: 1000.0, TWO: 1500.0, FOUR: 1400.0}), *in_rounds({BASE: [1000.0], FOUR: [1400.0]})])
    assert finalists_after(study, since=3) == (FOUR,)
    assert finalists_after(study, since=2) == (TWO, FOUR)


def test_time_is_kept_for_confirming_the_finalists_of_now() -> None:
    alone, both = needed_for_confirming_s(so_far(BOTH[:1])), needed_for_confirming_s(so_far(BOTH))
    assert 0 < alone < both
    soak = searched({BASE: 1000.0, TWO: 50.0})
    assert needed_for_confirming_s(so_far(soak)) > both + 20 * 128 / 50


def test_of_a_spent_budget_the_rounds_keep_their_share() -> None:
    """A search that ended in time goes to its first round, not to the verdict."""
    study = with_search_s(so_far(BOTH), 0.0)
    decision = decide(study, beginning(study))
    assert isinstance(decision.session.stage, InRound)
    assert study.budget == BudgetNow(total_s=300.0, elapsed_s=study.budget.elapsed_s)


# One side alone


def test_sides_are_measured_one_at_a_time_and_never_at_the_end() -> None:
    study = so_far(WITH_USELESS)
    assert next_trial(study, beginning(study)) == Measure(or_side=True)
    assert next_trial(dataclasses.replace(study, one_at_a_time=False), beginning(study)) == Measure()
    late = next_trial(with_search_s(study, 3.0), beginning(study))
    assert late is not None
    assert not late.or_side


@pytest.mark.parametrize("side", ["step", "loader"])
def test_a_run_of_one_side_is_short_and_none_that_could_win(side: Side) -> None:
    study = so_far(WITH_USELESS)
    run = side_alone(study, Aside(TWO, side))
    assert (run.purpose, run.request.config, run.request.side) == (Purpose.SIDE, TWO, side)
    assert run.request.time_limit_s == max(SIDE_SHARES[side] * study.budget.trial_s, SHORTEST_SIDE_S)
    assert run.request.hopeless_below is None
    ending = with_search_s(study, START_UP_S + 0.7)
    assert side_alone(ending, Aside(TWO, side)).request.time_limit_s == pytest.approx(0.7)


def test_one_side_makes_no_configuration_a_known_one() -> None:
    study = so_far([*WITH_USELESS, ran(TWO, 1500.0, Purpose.SIDE)])
    assert last_trial(study, beginning(study)) == TWO
