"""What comes after the rounds: each rule with the smallest study that it decides."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from support.deciding import (
    BASE,
    BF16,
    BF16_TWO,
    BUDGET_S,
    FOUR,
    SOAK_STEPS,
    TWO,
    confirming,
    in_rounds,
    ran,
    searched,
    session_at,
    so_far,
    watched_runs,
)

from autotune.config import TrainConfig
from autotune.records import Failure, OptimizerSteps, Purpose, TrialRecord, TrialStatus
from autotune.search.decide import actions
from autotune.search.decide.actions import Action, Soak, Stop
from autotune.search.decide.conclude import emitted_instead, is_to_be_tested, is_to_be_tested_late, judged
from autotune.search.decide.decide import Decision, decide
from autotune.search.decide.judging import before_its_soak, nothing_faster
from autotune.search.decide.session import Concluding
from autotune.search.decide.soak import soak_of
from autotune.search.decide.study import StudySoFar
from autotune.search.decide.verdict import Verdict
from autotune.search.policy import SHORTEST_SOAK_S, SOAK_SHARE
from autotune.stats import Comparison, Estimate, Interval, Outcome

SEARCHED = searched({BASE: 1000.0, TWO: 1500.0, FOUR: 1400.0})
ROUNDS = in_rounds({BASE: (1000.0, 1001.0, 999.0), TWO: (1501.0, 1499.0, 1500.0), FOUR: (1400.0, 1401.0, 1399.0)})
CONFIRMED = [*SEARCHED, *ROUNDS]
NAN = Failure(reason="the loss is nan")


def soaked(config: TrainConfig, samples_per_s: float, **changes: Any) -> TrialRecord:
    return ran(config, samples_per_s, Purpose.SOAK, **changes)


def concluded(study: StudySoFar, *finalists: TrainConfig, **stage: Any) -> Decision:
    return decide(study, session_at(study, Concluding(**stage), *finalists))


def verdict_of(study: StudySoFar, *finalists: TrainConfig) -> Verdict:
    action = concluded(study, *finalists).action
    assert isinstance(action, Stop)
    assert action.verdict is not None
    return action.verdict


def names(action: Action) -> tuple[type, TrainConfig]:
    assert isinstance(action, actions.Run)
    return type(action), action.request.config


def test_one_round_says_nothing_so_that_the_searchs_best_stands_unconfirmed() -> None:
    verdict = verdict_of(so_far([*SEARCHED, *ROUNDS[:3]]))
    assert (verdict.config, verdict.word, verdict.speedup.pairs) == (TWO, "unconfirmed", 0)


def test_the_leader_is_soaked_and_then_emitted() -> None:
    assert names(concluded(so_far(CONFIRMED)).action) == (Soak, TWO)
    verdict = verdict_of(so_far([*CONFIRMED, soaked(TWO, 1500.0)]))
    assert (verdict.config, verdict.word) == (TWO, "stable")
    assert verdict.speedup.ratio.value == pytest.approx(1.5, rel=1e-3)
    assert {"soak", "soak_throughput", "steady_state"} <= {check.name for check in verdict.checks}


def test_without_time_for_a_soak_it_is_emitted_unconfirmed() -> None:
    verdict = verdict_of(so_far(CONFIRMED, left_s=0.9))
    assert (verdict.config, verdict.word) == (TWO, "unconfirmed")
    assert [check.detail for check in verdict.checks if not check.holds] == ["the budget ended before the soak"]


def test_a_spec_without_a_soak_gets_none() -> None:
    without = {"stability": {"soak_steps": 0}}
    assert soak_of(so_far(CONFIRMED, sections=without), TWO) is None
    assert verdict_of(so_far(CONFIRMED, sections=without)).word == "stable"


def test_who_fails_its_soak_makes_way_and_what_stands_then_is_the_next() -> None:
    failed = soaked(TWO, 1500.0, status=TrialStatus.DIVERGED, failure=NAN)
    decision = concluded(so_far([*CONFIRMED, failed]))
    assert names(decision.action) == (Soak, FOUR)
    assert decision.stands is not None
    assert (decision.stands.config, decision.stands.word) == (FOUR, "unconfirmed")
    assert [check.detail for check in decision.stands.refused[TWO]] == ["the loss is nan"]


def test_where_all_fail_the_baseline_stands() -> None:
    failing = [soaked(config, 1500.0, status=TrialStatus.DIVERGED, failure=NAN) for config in (TWO, FOUR)]
    assert names(concluded(so_far([*CONFIRMED, *failing])).action) == (Soak, BASE)
    failing.append(soaked(BASE, 1000.0))
    verdict = verdict_of(so_far([*CONFIRMED, *failing], exhausted=True))
    assert (verdict.config, verdict.word, set(verdict.refused)) == (BASE, "stable", {TWO, FOUR})
    assert (verdict.speedup.outcome, verdict.speedup.ratio) == (Outcome.TIE, Estimate(1.0, None))
    assert verdict_of(so_far([*CONFIRMED, *failing])).word == "unconfirmed", "others may be left to try"


def test_what_is_not_faster_beyond_doubt_is_passed_over_and_the_best_of_it_said() -> None:
    slower = in_rounds({BASE: (1000.0, 1001.0), TWO: (950.0, 951.0), FOUR: (900.0, 901.0)})
    decision = concluded(so_far([*SEARCHED, *slower]))
    assert names(decision.action) == (Soak, BASE)
    assert decision.stands is not None
    assert (decision.stands.config, decision.stands.word) == (BASE, "unconfirmed")
    verdict = verdict_of(so_far([*SEARCHED, *slower, soaked(BASE, 1000.0)]))
    assert (verdict.config, verdict.word) == (BASE, "stable")
    (check,) = [check for check in verdict.checks if check.name == "nothing_faster"]
    assert "num_workers 2" in check.detail
    assert "0.95×" in check.detail
    assert verdict.refused == {}


def waiting(run: TrialRecord) -> TrialRecord:
    """The same run, all of whose time went into waiting for data."""
    blocks = [block.model_copy(update={"phases": {"data_wait": block.seconds}}) for block in run.result.blocks]
    return run.model_copy(update={"result": run.result.model_copy(update={"blocks": tuple(blocks)})})


def test_where_the_baseline_may_not_stand_a_slower_one_is_emitted() -> None:
    slower = in_rounds({BASE: (1000.0, 1001.0), TWO: (950.0, 951.0)})
    runs = [waiting(run) if run.result.config == BASE else run for run in slower]
    limits = {"constraints": ["data_wait_fraction <= 0.1"]}
    verdict = verdict_of(so_far([*SEARCHED[:2], *runs, soaked(TWO, 950.0)], sections=limits))
    assert (verdict.config, verdict.word) == (TWO, "stable")
    slow_soak = verdict_of(so_far([*SEARCHED[:2], *runs, soaked(TWO, 800.0)], sections=limits))
    assert (slow_soak.config, slow_soak.word) == (TWO, "unconfirmed")
    assert slow_soak.measured.samples_per_s == pytest.approx(800.0, rel=1e-3)


@pytest.mark.parametrize(
    ("outcome", "high", "passes"),
    [
        (Outcome.AMBIGUOUS, 1.04, True),
        (Outcome.AMBIGUOUS, 1.06, False),
        (Outcome.TIE, 1.06, True),
        (Outcome.SLOWER, 0.9, True),
    ],
)
def test_nothing_is_faster_where_the_best_other_is_not_or_hardly(outcome: Outcome, high: float, passes: bool) -> None:
    compared = Comparison(ratio=Estimate(0.9, Interval(0.8, high)), outcome=outcome, pairs=2)
    assert nothing_faster(so_far(SEARCHED), (TWO, compared)).passed is passes


# The soak on record


def test_a_soak_that_passed_counts_and_one_that_failed_counts_above_all() -> None:
    passed = soaked(TWO, 1500.0)
    failed = soaked(TWO, 1500.0, status=TrialStatus.DIVERGED, failure=NAN)
    assert soak_of(so_far([*CONFIRMED, passed]), TWO) == passed.result
    assert soak_of(so_far([*CONFIRMED, failed, passed]), TWO) == failed.result
    assert isinstance(soak_of(so_far([*CONFIRMED, passed]), FOUR), Soak), "another's is none of its"


def cut(left_s: float) -> TrialRecord:
    """A soak that was killed with so much of the budget left."""
    failure = Failure(reason="no answer")
    ended_s = BUDGET_S - 1 - left_s
    return soaked(TWO, 1500.0, status=TrialStatus.TIMEOUT, failure=failure, elapsed_s=ended_s)


@pytest.mark.parametrize(("left_s", "hung"), [(1.1, True), (0.9, False)])
def test_a_soak_that_was_killed_long_before_the_budgets_end_has_hung(left_s: float, hung: bool) -> None:
    study = so_far([*CONFIRMED, cut(left_s)], left_s=left_s)
    assert (soak_of(study, TWO) is not None) is hung
    confirmation = concluded(study).session.confirmation
    assert confirmation is not None
    assert (TWO in confirmation.finalists.refused) is hung


def test_one_that_an_earlier_session_had_no_time_for_is_run_again() -> None:
    records = [*CONFIRMED, cut(left_s=100.0)]
    assert isinstance(soak_of(so_far(records, known_before=len(records)), TWO), Soak)


def test_one_that_the_budgets_end_made_short_confirms_nothing_and_says_what_would_be_enough() -> None:
    whole = soaked(TWO, 1500.0).result.steps
    assert whole is not None
    fewer = SOAK_STEPS - 1
    steps = OptimizerSteps(losses=whole.losses[:fewer], samples=whole.samples[:fewer], skipped=whole.skipped[:fewer])
    short = soaked(TWO, 1500.0, steps=steps, elapsed_s=BUDGET_S - 1)
    verdict = verdict_of(so_far([*CONFIRMED, short], left_s=0.0))
    assert (verdict.config, verdict.word, verdict.refused) == (TWO, "unconfirmed", {})
    (check,) = [check for check in verdict.checks if not check.holds]
    assert check.detail == f"the budget ended after {fewer} of the soak's {SOAK_STEPS} steps; use at least 10m"


def test_it_ends_by_itself_before_the_budget_does() -> None:
    study = so_far(CONFIRMED, left_s=30.0)
    soak = soak_of(study, TWO)
    assert isinstance(soak, Soak)
    assert soak.request.ends_after_s == 30.0 - study.costs.soak_s(TWO, 1)


@pytest.mark.parametrize(("more_s", "runs"), [(0.1, True), (-0.1, False)])
def test_without_time_for_its_start_there_is_none(more_s: float, runs: bool) -> None:
    study = so_far(CONFIRMED)
    needed_s = study.costs.soak_s(TWO, 1) + min(SHORTEST_SOAK_S, SOAK_STEPS * study.costs.busy_step_s(TWO))
    soak = soak_of(so_far(CONFIRMED, left_s=max(needed_s, SHORTEST_SOAK_S) + more_s), TWO)
    assert isinstance(soak, Soak) is runs


@pytest.mark.parametrize(("more", "goes_on"), [(-128, True), (128, False)])
def test_it_goes_on_past_the_end_of_an_epoch_where_that_costs_little(more: int, goes_on: bool) -> None:
    study = so_far(CONFIRMED)
    steps = 0
    while study.costs.soak_s(TWO, steps + 2) < SOAK_SHARE * BUDGET_S:
        steps += 1
    samples = 128 * steps + more
    workload = study.facts.workload.model_copy(update={"dataset_samples": samples})
    soak = soak_of(dataclasses.replace(study, facts=study.facts.model_copy(update={"workload": workload})), TWO)
    assert isinstance(soak, Soak)
    assert soak.request.min_steps == (samples // 128 + 2 if goes_on else SOAK_STEPS)
    assert soak.deadline_s == study.budget.remaining_s
    assert not soak.request.in_any_process


# A soak and the rounds


def test_a_soak_that_contradicts_the_rounds_and_is_still_faster_is_emitted_by_its_own_figure() -> None:
    verdict = verdict_of(so_far([*CONFIRMED, soaked(TWO, 1200.0)]))
    assert (verdict.config, verdict.word) == (TWO, "unconfirmed")
    assert verdict.measured.samples_per_s == pytest.approx(1200.0, rel=1e-3)
    assert verdict.speedup.ratio.value == pytest.approx(1.2, rel=2e-3)


def test_one_that_is_no_faster_than_the_baseline_refuses() -> None:
    study = so_far([*CONFIRMED, soaked(TWO, 1000.0)])
    assert names(concluded(study).action) == (Soak, FOUR)
    now = confirming(study)
    checks, refusing = judged(now, TWO, soaked(TWO, 1000.0).result)
    assert [check.name for check in refusing] == ["soak_throughput"]
    assert checks[-1] == refusing[0]


def test_what_stands_before_the_soak_is_the_leader_without_it() -> None:
    now = confirming(so_far(CONFIRMED))
    stands = before_its_soak(now)
    assert stands is not None
    assert (stands.config, stands.word) == (TWO, "unconfirmed")
    failed = soaked(TWO, 1500.0, status=TrialStatus.DIVERGED, failure=NAN)
    assert before_its_soak(confirming(so_far([*CONFIRMED, failed]))) is None
    slower = in_rounds({BASE: (1000.0, 1001.0), TWO: (950.0, 951.0)})
    assert before_its_soak(confirming(so_far([*SEARCHED[:2], *slower]))) is None
    assert before_its_soak(confirming(so_far(SEARCHED))) is None


# Tests that the rounds had no time for


RATES = {BASE: (1000.0, 1001.0, 999.0), BF16: (1500.0, 1501.0, 1499.0), TWO: (1200.0, 1201.0, 1199.0)}
UNTESTED = [*searched({BASE: 1000.0, BF16: 1500.0, TWO: 1200.0}), *in_rounds(RATES)]


def times(study: StudySoFar) -> tuple[float, float]:
    """Of the tests and the soak of bf16; of the tests alone."""
    timetable = confirming(study).timetable
    return timetable.tests_and_soak_s(BF16), timetable.tests_s([BF16])


def test_the_leader_is_tested_now_where_there_is_time_for_that_and_the_soak() -> None:
    both_s, _ = times(so_far(UNTESTED))
    decision = concluded(so_far(UNTESTED, left_s=both_s + 0.01))
    assert names(decision.action) == (actions.Test, BASE)
    assert decision.session.stage == Concluding(testing=BF16)
    assert names(concluded(so_far(UNTESTED, left_s=both_s - 0.01)).action) == (Soak, TWO)


def test_once_begun_they_go_on_as_long_as_there_is_time_for_a_run() -> None:
    both_s, _ = times(so_far(UNTESTED))
    reference, probe = watched_runs(BF16)
    begun = so_far([*UNTESTED, reference], left_s=both_s / 2)
    assert not is_to_be_tested(confirming(begun), BF16)
    assert names(concluded(begun, testing=BF16).action) == (actions.Test, BF16)
    ended = so_far([*UNTESTED, reference, probe], left_s=both_s / 2)
    decision = concluded(ended, testing=BF16)
    assert names(decision.action) == (Soak, BF16)
    assert decision.session.stage == Concluding()


def test_who_fails_them_makes_way_here_too() -> None:
    died = watched_runs(BF16, status=TrialStatus.DIVERGED, failure=NAN)
    decision = concluded(so_far([*UNTESTED, *died]), testing=BF16)
    assert names(decision.action) == (Soak, TWO)
    assert decision.session.confirmation is not None
    assert BF16 in decision.session.confirmation.finalists.refused


def test_not_of_what_is_not_worth_it_or_is_tested_or_cannot_be() -> None:
    slower = {**RATES, BF16: (1000.0, 1010.0, 990.0)}
    doubtful = so_far([*UNTESTED[:3], *in_rounds(slower)])
    assert not is_to_be_tested(confirming(doubtful), BF16)
    assert not is_to_be_tested(confirming(so_far(UNTESTED)), TWO)
    assert not is_to_be_tested(confirming(so_far([*UNTESTED, *watched_runs(BF16)])), BF16)
    hung = ran(BASE, TrialStatus.TIMEOUT, Purpose.REFERENCE)
    assert not is_to_be_tested(confirming(so_far([*UNTESTED, hung])), BF16)
    assert is_to_be_tested(confirming(so_far(UNTESTED)), BF16)


def test_without_time_for_them_a_tested_one_is_emitted_where_that_is_faster_too() -> None:
    short = so_far(UNTESTED, left_s=8.0)
    assert emitted_instead(confirming(short), BF16) == TWO
    slower = {**RATES, TWO: (900.0, 901.0, 902.0)}
    none_other = so_far([*UNTESTED[:3], *in_rounds(slower)], left_s=8.0)
    assert emitted_instead(confirming(none_other), BF16) == BF16
    done = so_far([*UNTESTED, *watched_runs(BF16)], left_s=8.0)
    assert emitted_instead(confirming(done), BF16) == BF16


def alone(*more: TrialRecord, left_s: float) -> StudySoFar:
    """bf16 and nothing that could be emitted in its place."""
    rounds = in_rounds({config: RATES[config] for config in (BASE, BF16)})
    return so_far([*UNTESTED[:2], *rounds, *more], left_s=left_s)


def test_after_the_soak_they_run_in_what_is_left_though_it_may_not_do() -> None:
    _, tests_s = times(alone(left_s=50.0))
    assert names(concluded(alone(left_s=tests_s)).action) == (Soak, BF16)
    late = alone(soaked(BF16, 1500.0), left_s=tests_s / 2)
    decision = concluded(late)
    assert names(decision.action) == (actions.Test, BASE)
    assert decision.session.stage == Concluding(testing=BF16)
    too_late = alone(soaked(BF16, 1500.0), left_s=tests_s / 2 - 0.01)
    verdict = verdict_of(too_late)
    assert (verdict.config, verdict.word) == (BF16, "unconfirmed")
    assert [check.name for check in verdict.checks if not check.holds] == ["reference_runs"]


def test_late_tests_are_of_what_has_had_none() -> None:
    tested = so_far([*UNTESTED, *watched_runs(BF16)])
    assert not is_to_be_tested_late(confirming(tested), BF16)
    hung = ran(BASE, TrialStatus.TIMEOUT, Purpose.REFERENCE)
    assert not is_to_be_tested_late(confirming(so_far([*UNTESTED, hung])), BF16)
    assert is_to_be_tested_late(confirming(so_far(UNTESTED)), BF16)


def test_once_they_have_run_what_was_soaked_is_stable() -> None:
    _, tests_s = times(alone(left_s=50.0))
    done = alone(soaked(BF16, 1500.0), *watched_runs(BF16), left_s=tests_s / 3)
    verdict = verdict_of(done)
    assert (verdict.config, verdict.word) == (BF16, "stable")


def test_what_is_emitted_says_what_its_settings_gain_and_what_richer_finalists_had_beside_them() -> None:
    richer: dict[TrainConfig, Sequence[float | None]] = {
        BASE: (1000.0, 1001.0, 999.0),
        TWO: (1501.0, 1499.0, 1500.0),
        BF16_TWO: (1500.0, 1499.0, 1501.0),
    }
    records = [*searched({BASE: 1000.0, TWO: 1500.0, BF16_TWO: 1501.0}), *in_rounds(richer)]
    verdict = verdict_of(so_far([*records, *watched_runs(BF16_TWO), soaked(TWO, 1500.0)]))
    assert verdict.config == TWO
    assert [(setting["set"], setting["kept"]) for setting in verdict.settings] == [
        ({"num_workers": 2, "prefetch_factor": 2}, True),
        ({"amp_dtype": "bf16"}, False),
    ]


def test_where_its_soak_refuses_the_last_the_next_begins_its_rounds() -> None:
    died = soaked(TWO, TrialStatus.DIVERGED, failure=NAN)  # type: ignore[arg-type]
    runs = in_rounds({BASE: (1000.0, 1001.0), TWO: (1501.0, 1499.0)})
    decision = concluded(so_far([*SEARCHED, *runs, died], exhausted=True), TWO)
    assert names(decision.action) in {(actions.Confirm, BASE), (actions.Confirm, FOUR)}
    confirmation = decision.session.confirmation
    assert confirmation is not None
    assert confirmation.finalists.now == (FOUR,)
    assert set(confirmation.finalists.refused) == {TWO}
