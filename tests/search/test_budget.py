"""The wall-clock budget of the whole command."""

from __future__ import annotations

import dataclasses

import pytest
from support.deciding import BASE, ran
from support.simulation import Clock

from autotune.records import Purpose, TrialRequest, TrialStatus
from autotune.search.budget import Budget, BudgetNow
from autotune.search.decide.actions import Trial
from autotune.search.policy import CONFIRM_SHARE, EMIT_RESERVE_S
from autotune.search.runner import why_cut_short


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_time_counts_from_when_the_command_began(clock: Clock) -> None:
    budget = Budget(100, clock, began_s=clock() - 3)
    assert budget.elapsed_s == 3
    clock.advance(4)
    assert budget.elapsed_s == 7
    assert Budget(100, clock).elapsed_s == 0


def test_a_moment_is_kept_for_writing_the_result(clock: Clock) -> None:
    budget = Budget(100, clock)
    clock.advance(60)
    assert budget.remaining_s == 40 - EMIT_RESERVE_S


def test_earlier_sessions_count_and_the_pause_between_them_does_not(clock: Clock) -> None:
    budget = Budget(100, clock)
    clock.advance(5)
    budget.carry_over(30)
    assert budget.elapsed_s == 35
    assert budget.remaining_s == 65 - EMIT_RESERVE_S
    assert budget.search_remaining_s == 65 - 100 * CONFIRM_SHARE


def test_a_budget_that_is_spent_leaves_less_than_nothing(clock: Clock) -> None:
    budget = Budget(10, clock)
    clock.advance(11)
    assert budget.remaining_s < 0
    assert budget.search_remaining_s < 0


def test_of_200_seconds_the_search_has_130_and_leaves_the_others_for_confirming(clock: Clock) -> None:
    budget = Budget(200, clock)
    assert budget.search_remaining_s == pytest.approx(130)
    clock.advance(30)
    assert budget.search_remaining_s == pytest.approx(100)


@pytest.mark.parametrize(("needed_s", "kept_s"), [(0, 70), (69, 70), (80, 80), (119, 119), (121, 120), (1e6, 120)])
def test_what_is_kept_for_confirming_has_bounds(clock: Clock, needed_s: float, kept_s: float) -> None:
    budget = Budget(200, clock)
    budget.reserve_for_confirming(needed_s)
    assert 200 - budget.search_remaining_s == pytest.approx(kept_s)


def test_a_reserve_may_shrink_again(clock: Clock) -> None:
    budget = Budget(200, clock)
    budget.reserve_for_confirming(90)
    budget.reserve_for_confirming(70)
    assert 200 - budget.search_remaining_s == pytest.approx(70)


@pytest.mark.parametrize(("total_s", "trial_s"), [(10, 1.5), (30, 1.5), (100, 3.0), (600, 18.0), (3600, 20.0)])
def test_a_trial_takes_its_share_within_bounds(total_s: float, trial_s: float) -> None:
    assert BudgetNow(total_s=total_s).trial_s == pytest.approx(trial_s)


def test_the_baseline_may_take_half_of_the_search(clock: Clock) -> None:
    budget = Budget(100, clock)
    assert budget.now.baseline_deadline_s() == pytest.approx(100 * (1 - CONFIRM_SHARE) / 2)
    clock.advance(90)
    assert budget.now.baseline_deadline_s() == budget.remaining_s


def test_a_baseline_after_the_end_has_no_time_rather_than_less(clock: Clock) -> None:
    budget = Budget(100, clock)
    clock.advance(150)
    assert budget.now.baseline_deadline_s() == 0


def test_a_trial_has_what_the_baseline_took_with_much_to_spare(clock: Clock) -> None:
    budget = Budget(600, clock)
    patience_s = budget.now.patience_s(10, compiles=False)
    assert patience_s == 2 * 10 + 3 * budget.now.trial_s
    assert budget.now.patience_s(10, compiles=True) >= patience_s + 60
    assert budget.now.trial_deadline_s(patience_s) == patience_s


def test_a_trial_may_run_one_trials_time_past_the_end_of_the_search_and_no_longer(clock: Clock) -> None:
    budget = Budget(600, clock)
    clock.advance(600 * (1 - CONFIRM_SHARE) - 5)
    assert budget.now.trial_deadline_s(1e6) == pytest.approx(5 + budget.now.trial_s)
    assert budget.now.trial_deadline_s(3) == 3
    clock.advance(20)
    assert budget.now.trial_deadline_s(1e6) == pytest.approx(budget.now.trial_s - 15)
    clock.advance(20)
    assert budget.now.trial_deadline_s(1e6) == 0


def test_no_trial_runs_past_the_budget(clock: Clock) -> None:
    budget = Budget(3, clock)
    clock.advance(1)
    assert budget.search_remaining_s + budget.now.trial_s > budget.remaining_s
    assert budget.now.trial_deadline_s(1e6) == budget.remaining_s == 1
    clock.advance(2)
    assert budget.now.trial_deadline_s(1e6) == 0


@pytest.mark.parametrize(
    ("start_s", "step_s", "given_s"),
    [
        pytest.param(0.0, 0.01, 25.0, id="six runs fit into the share of 15 %"),
        pytest.param(5.0, 0.01, 20.0, id="starts included"),
        pytest.param(5.0, 1.5, 30.0, id="20 steps, as long as four runs fit"),
        pytest.param(5.0, 2.0, 32.5, id="or as many as fit four times"),
        pytest.param(35.0, 2.0, 24.0, id="12 steps in any case"),
        pytest.param(35.0, 4.0, 30.0, id="within 3 % of the budget"),
        pytest.param(35.0, 7.0, 42.0, id="6 steps"),
        pytest.param(35.0, 20.0, 50.0, id="within 5 %"),
        pytest.param(99.0, 0.01, 10.0, id="1 % however long the start takes"),
    ],
)
def test_runs_whose_losses_are_compared_share_the_tests_time(start_s: float, step_s: float, given_s: float) -> None:
    assert BudgetNow(total_s=1000).watched_run_s(start_s, step_s) == pytest.approx(given_s)


def test_a_run_that_the_budgets_end_has_stopped_says_what_would_do() -> None:
    records = [ran(BASE, 1000.0, wall_s=wall_s) for wall_s in (20.0, 25.0, 60.0)]
    records += [ran(BASE, 1000.0, Purpose.CONFIRM, wall_s=400.0), ran(BASE, TrialStatus.CRASHED, wall_s=900.0)]
    request = TrialRequest(config=BASE, seed=0, time_limit_s=5.0)
    cut = Trial(purpose=Purpose.SEARCH, request=request, deadline_s=4.0)
    said = "the budget left 4 s; a trial here needs about 25 s; use at least 5m"
    assert why_cut_short(records, cut, 240.0) == said
    enough = dataclasses.replace(cut, deadline_s=30.0)
    assert why_cut_short(records, enough, 240.0) is None, "those before it took no longer"
    assert why_cut_short([], cut, 240.0) is None
