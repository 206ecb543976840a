"""The rounds of the confirmation and what follows from each: each rule with the smallest study that it decides."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from functools import partial

import pytest
from support.deciding import (
    BASE,
    BF16,
    BF16_TWO,
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
from autotune.records import Failure, Purpose, Rates, TrialRecord, TrialStatus
from autotune.search.decide import actions, session
from autotune.search.decide.actions import Confirm, Measure, Try
from autotune.search.decide.confirm import (
    after_its_trial,
    after_round,
    begin_round,
    in_round,
    run_tests,
    simpler_finalist,
    to_test,
    trial_of,
    without_violators,
)
from autotune.search.decide.decide import decide
from autotune.search.decide.rounds import (
    confirming_run,
    has_had_its_share,
    is_decided,
    racing,
    rounds_so_far,
)
from autotune.search.decide.session import Concluding, Exploring, InRound, Trying
from autotune.search.decide.study import StudySoFar
from autotune.search.figures import samples_per_s
from autotune.search.policy import (
    CONFIRM_SHARE,
    FULL_ROUNDS,
    KEPT_FOR_SOAK_S,
    LITTLE,
    MOST_ROUNDS,
    NEXT_TO_NOTHING,
    PATIENCE,
    PATIENCE_S,
    PRECISE,
    SHORTEST_RUN_S,
    TRUE_TO,
)

SEARCHED = searched({BASE: 1000.0, TWO: 1500.0, FOUR: 1400.0})
LIMIT_S = 2.0
CALM = {BASE: (1000.0, 1001.0, 999.0), TWO: (1501.0, 1499.0, 1500.0), FOUR: (1400.0, 1401.0, 1399.0)}


def rounds(count: int) -> list[TrialRecord]:
    """So many on a calm machine."""
    return in_rounds({config: rates[:count] for config, rates in CALM.items()})


def a_round(*order: TrainConfig, place: int = 0, tries: int = 0, number: int = 1) -> InRound:
    return InRound(number=number, order=order, limit_s=LIMIT_S, place=place, tries=tries)


# A round


def test_a_round_is_of_the_baseline_and_all_finalists_in_an_order_of_its_own() -> None:
    study = so_far(SEARCHED)
    begun = begin_round(study, session_at(study, Exploring.of(study)))
    stage = begun.session.stage
    assert isinstance(stage, InRound)
    assert stage.number == 1
    assert set(stage.order) == {BASE, TWO, FOUR}
    assert begun.session.given_s == stage.limit_s == confirming(study).run_limit_s
    orders = set()
    for seed in range(20):
        other = so_far(SEARCHED, sections={"training": {"effective_batch_size": 128, "seed": seed}})
        stage = begin_round(other, session_at(other, Exploring.of(other))).session.stage
        assert isinstance(stage, InRound)
        orders.add(stage.order)
    assert len(orders) == math.factorial(3)


def test_rounds_of_an_earlier_session_count() -> None:
    study = so_far([*SEARCHED, *rounds(1)])
    stage = begin_round(study, session_at(study, Exploring.of(study))).session.stage
    assert isinstance(stage, InRound)
    assert stage.number == 2


def test_a_rounds_first_run_is_in_a_new_process_and_the_others_in_any() -> None:
    study = so_far(SEARCHED)
    session = session_at(study, a_round(TWO, BASE))
    first = in_round(study, session, a_round(TWO, BASE))
    assert isinstance(first.action, Confirm)
    assert (first.action.round, first.action.request.config, first.action.request.seed) == (1, TWO, 1)
    assert not first.action.request.in_any_process
    assert first.session.stage == a_round(TWO, BASE, tries=1)
    second = in_round(study, session, a_round(TWO, BASE, place=1))
    assert isinstance(second.action, Confirm)
    assert second.action.request.config == BASE
    assert second.action.request.in_any_process


def test_after_each_run_comes_the_next_configurations() -> None:
    study = so_far([*SEARCHED, *in_rounds({TWO: [1500.0]})])
    step = in_round(study, session_at(study, a_round(TWO, BASE)), a_round(TWO, BASE, tries=1))
    assert step.action is None
    assert step.session.stage == a_round(TWO, BASE, place=1)


def disturbed_run(study: Sequence[TrialRecord], tries: int = 1) -> tuple[StudySoFar, InRound]:
    run = ran(TWO, 1500.0, Purpose.CONFIRM, round_number=1, disturbed=True)
    return so_far([*study, run]), a_round(TWO, BASE, tries=tries)


def test_a_run_beside_other_work_is_made_again_once() -> None:
    study, stage = disturbed_run(SEARCHED)
    step = in_round(study, session_at(study, stage), stage)
    assert isinstance(step.action, Confirm)
    assert (step.action.request.config, step.action.request.in_any_process) == (TWO, True)
    assert step.session.stage == dataclasses.replace(stage, tries=2)
    study, twice = disturbed_run(SEARCHED, tries=2)
    assert in_round(study, session_at(study, twice), twice).session.stage == a_round(TWO, BASE, place=1)


def test_on_a_machine_that_is_always_busy_it_is_not() -> None:
    busy = [ran(config, 1000.0, disturbed=True) for config in (TWO, FOUR)]
    study, stage = disturbed_run([SEARCHED[0], *busy])
    assert not study.is_usually_free
    assert in_round(study, session_at(study, stage), stage).action is None
    half = so_far([SEARCHED[0], busy[0]])
    assert not half.is_usually_free, "half of the runs is not most of them"
    assert so_far(SEARCHED[:1]).is_usually_free


@pytest.mark.parametrize(
    ("config", "cut_short", "stays"), [(TWO, False, False), (TWO, True, True), (BASE, False, True)]
)
def test_a_finalist_whose_run_fails_by_its_own_doing_is_out(config: TrainConfig, cut_short: bool, stays: bool) -> None:
    failed = ran(config, TrialStatus.CRASHED, Purpose.CONFIRM, round_number=1, cut_short=cut_short)
    study, stage = so_far([*SEARCHED, failed]), a_round(config, FOUR, tries=1)
    confirmation = in_round(study, session_at(study, stage), stage).session.confirmation
    assert confirmation is not None
    assert confirmation.finalists.now == ((TWO, FOUR) if stays else (FOUR,))
    assert confirmation.finalists.rejected == (frozenset() if stays else {config})


def test_where_there_is_no_time_for_its_first_run_no_round_begins_for_ever() -> None:
    study, stage = so_far(SEARCHED, left_s=0.5), a_round(TWO, BASE)
    step = in_round(study, session_at(study, stage), stage)
    assert step.action is None
    assert step.session.stage == Concluding()


def test_where_there_is_none_for_a_later_run_the_round_is_over() -> None:
    study = so_far([*SEARCHED, *in_rounds({TWO: [1500.0]})], left_s=0.5)
    stage = a_round(TWO, BASE, place=1)
    step = in_round(study, session_at(study, stage), stage)
    assert isinstance(step.session.stage, Exploring)


def test_a_run_takes_no_time_from_the_tests_and_the_soak() -> None:
    now = confirming(so_far([*SEARCHED, *rounds(2)]))
    expected_s = now.study.costs.run_s(TWO, LIMIT_S)
    run = confirming_run(now, TWO, 3, LIMIT_S)
    assert run is not None
    assert run.patience_s == run.deadline_s == PATIENCE * expected_s + PATIENCE_S
    for_soak_s = now.study.budget.remaining_s - now.for_rounds_s
    assert for_soak_s > 0

    def with_time_s(seconds: float) -> Confirm | None:
        return confirming_run(confirming(so_far([*SEARCHED, *rounds(2)], left_s=for_soak_s + seconds)), TWO, 2, LIMIT_S)

    late = with_time_s(expected_s + 0.01)
    assert late is not None
    assert late.deadline_s == pytest.approx(expected_s + 0.01)
    assert late.patience_s == run.patience_s
    assert with_time_s(expected_s - 0.01) is None


@pytest.mark.parametrize(("rates", "is_kept"), [((1900.0, 1100.0), False), ((1000.0, 1005.0), True)])
def test_no_time_is_kept_for_the_soak_of_a_baseline_beside_what_seems_faster(
    rates: tuple[float, ...], is_kept: bool
) -> None:
    """By runs too different for it to be beyond doubt, or by so little that the baseline may be kept."""
    now = confirming(so_far([*searched({BASE: 1000.0, TWO: 1500.0}), *in_rounds({BASE: (1000.0, 1001.0), TWO: rates})]))
    assert not now.is_worthwhile(TWO)
    soak_s = max(KEPT_FOR_SOAK_S, *(now.study.costs.soak_s(each, SOAK_STEPS) for each in (BASE, TWO)))
    of_finalist_s = max(KEPT_FOR_SOAK_S, now.study.costs.soak_s(TWO, SOAK_STEPS))
    kept_s = now.study.budget.remaining_s - now.for_rounds_s
    assert kept_s == pytest.approx(soak_s if is_kept else of_finalist_s)
    assert soak_s > of_finalist_s


def expected_at(records: Sequence[TrialRecord], stage: InRound, *finalists: TrainConfig) -> int:
    """The round by whose runs the model was fitted, after the next decision of one that it was fitted before."""
    study = so_far(records)
    session = session_at(study, stage, *finalists)
    assert session.confirmation is not None
    before = dataclasses.replace(session, confirmation=dataclasses.replace(session.confirmation, expected_at=0))
    after = in_round(study, before, stage).session.confirmation
    assert after is not None
    return after.expected_at


def test_the_model_is_fitted_anew_for_the_first_comparison_since_a_round_has_begun() -> None:
    stage = a_round(BASE, TWO, FOUR, place=1, tries=1)
    assert expected_at([*SEARCHED, *rounds(1)], stage, TWO, FOUR) == 1
    assert expected_at([*SEARCHED[:2], *rounds(1)[:2]], stage, TWO) == 0, "one has no other to be compared with"
    over = a_round(BASE, TWO, place=1, tries=1)
    assert expected_at([*SEARCHED[:2], *rounds(1)[:2]], over, TWO) == 1, "but with its own parts, after the round"


# When the rounds are over


@pytest.mark.parametrize(("count", "decided"), [(FULL_ROUNDS - 1, False), (FULL_ROUNDS, True)])
def test_on_a_calm_machine_the_rounds_that_all_must_have_decide(count: int, decided: bool) -> None:
    now = confirming(so_far([*SEARCHED, *rounds(count)]))
    assert is_decided(now, [BASE, TWO]) is decided


def noisy(spread: float, count: int = 3) -> list[TrialRecord]:
    """Rounds of the leader that differ by ± `spread`, the baseline as well."""
    swing = [1 + spread, 1 - spread, 1.0, 1 + spread, 1 - spread, 1.0][:count]
    return in_rounds({BASE: [1000 * each for each in swing], TWO: [1500 * each for each in swing]})


def test_rounds_go_on_until_the_leaders_throughput_is_known() -> None:
    few = confirming(so_far([*SEARCHED[:2], *noisy(0.03)]))
    assert few.measured.is_decided(TWO, BASE)
    assert few.measured.doubt(TWO) > TRUE_TO
    assert not is_decided(few, [BASE, TWO])


SPLIT = {BASE: (1000.0, 1001.0), TWO: (1482.0, 1518.0)}
NO_SOAK = {"training": {"effective_batch_size": 128}, "stability": {"soak_steps": 0}}


def supply_limited(run: TrialRecord) -> TrialRecord:
    rates = Rates(
        sustained_per_s=samples_per_s(run),
        sustained_error=0.001,
        demand_per_s=3000.0,
        demand_error=0.001,
        supply_per_s=1500.0,
        supply_error=0.001,
        fetch_s=0.01,
    )
    return run.model_copy(update={"result": run.result.model_copy(update={"rates": rates})})


def test_a_soak_to_come_counts_for_how_well_the_leader_is_known() -> None:
    """Two rounds leave a doubt that one more run, which the soak is, is expected to settle."""
    now = confirming(so_far([*SEARCHED[:2], *in_rounds(SPLIT)]))
    assert now.measured.doubt(TWO, soaked=True) < TRUE_TO < now.measured.doubt(TWO)
    assert has_had_its_share(
        dataclasses.replace(now.study, budget=dataclasses.replace(now.study.budget, elapsed_s=9.0))
    )
    soon = dataclasses.replace(now.study.budget, elapsed_s=9.0)
    assert is_decided(confirming(dataclasses.replace(now.study, budget=soon)), [])
    without = so_far([*SEARCHED[:2], *in_rounds(SPLIT)], sections=NO_SOAK)
    assert not is_decided(confirming(dataclasses.replace(without, budget=soon)), [])


def test_a_soak_of_one_that_the_loader_limits_does_not() -> None:
    soon = dataclasses.replace(so_far().budget, elapsed_s=9.0)
    runs = [supply_limited(run) if run.result.config == TWO else run for run in in_rounds(SPLIT)]
    limited = confirming(dataclasses.replace(so_far([*SEARCHED[:2], *runs]), budget=soon))
    assert limited.measured.doubt(TWO, soaked=True) < TRUE_TO
    assert not is_decided(limited, [])


def test_one_run_more_tells_nothing_before_there_are_two() -> None:
    assert math.isinf(confirming(so_far([*SEARCHED, *rounds(1)])).measured.doubt(TWO, soaked=True))


def doubt_between(low: float, high: float, **budget: object) -> StudySoFar:
    for spread in (0.004, 0.006, 0.008, 0.01, 0.012, 0.014, 0.016, 0.018, 0.02, 0.022):
        study = so_far([*SEARCHED[:2], *noisy(spread, 6)])
        if low < confirming(study).measured.doubt(TWO, soaked=True) < high:
            return dataclasses.replace(study, budget=dataclasses.replace(study.budget, **budget))  # type: ignore[arg-type]
    raise AssertionError("no such spread")


def test_after_its_share_it_need_not_be_known_that_well() -> None:
    fresh = doubt_between(PRECISE, TRUE_TO, elapsed_s=250.0)
    spent_s = math.fsum(record.result.wall_s for record in fresh.records if record.optuna_trial is None)
    assert not has_had_its_share(fresh)
    assert not is_decided(confirming(fresh), [])
    longer = dataclasses.replace(fresh, budget=dataclasses.replace(fresh.budget, elapsed_s=spent_s / CONFIRM_SHARE - 1))
    assert has_had_its_share(longer)
    assert is_decided(confirming(longer), [])
    all_of_it = dataclasses.replace(longer, budget=dataclasses.replace(longer.budget, use_all=True))
    assert not has_had_its_share(all_of_it)


def test_a_rival_that_is_as_good_within_little_matters_only_where_all_is_to_be_spent() -> None:
    """Not decided by three rounds, and nobody would change a setting for what is at stake."""
    close = {BASE: CALM[BASE], TWO: (1485.0, 1515.0, 1505.0), FOUR: (1515.0, 1485.0, 1495.0)}
    study = so_far([*SEARCHED, *in_rounds(close)])
    now = confirming(study)
    assert not now.measured.is_decided(TWO, FOUR)
    assert now.leader is not None
    assert is_decided(now, [TWO, FOUR])
    spending = dataclasses.replace(study, budget=dataclasses.replace(study.budget, use_all=True))
    assert not is_decided(confirming(spending), [TWO, FOUR])
    assert is_decided(confirming(spending), [now.leader]), "who does not run on is not asked"


@pytest.mark.parametrize(("swing", "matters"), [(60.0, False), (100.0, True)])
def test_a_rival_of_which_little_is_known_runs_on_while_it_may_be_much_better(swing: float, matters: bool) -> None:
    rates = {
        BASE: (1000.0, 1001.0, 999.0, 1000.0),
        TWO: (1500.0, 1501.0, 1499.0, 1500.0),
        FOUR: (1500.0 + swing, 1500.0 - swing, 1495.0, 1500.0),
    }
    now = confirming(so_far([*SEARCHED, *in_rounds(rates)]))
    assert now.leader == TWO
    assert not now.measured.is_decided(TWO, FOUR)
    assert (now.measured.expected_loss(TWO, FOUR) > LITTLE) is matters
    assert is_decided(now, [TWO, FOUR]) is not matters


def test_a_round_takes_the_time_of_tests_and_soak_until_it_is_clear_that_the_leader_is_faster() -> None:
    """A search beside other work ended with half of its budget left: without an answer, no test tells anything."""
    one = confirming(so_far([*SEARCHED, *rounds(1)]))
    duel_s = one.timetable.round_s([BASE, TWO], SHORTEST_RUN_S, SHORTEST_RUN_S)
    late = confirming(so_far([*SEARCHED, *rounds(1)], left_s=duel_s + 0.01))
    assert not one.needs_all_time
    assert late.needs_all_time
    assert late.for_rounds_s == late.study.budget.remaining_s
    assert set(racing(late, SHORTEST_RUN_S)) == {BASE, TWO}, "and no other finalist"
    assert racing(confirming(so_far([*SEARCHED, *rounds(1)], left_s=duel_s - 0.01)), SHORTEST_RUN_S) == []


@pytest.mark.parametrize(
    ("rates", "does"),
    [
        pytest.param((1900.0, 1100.0), True, id="likely, not sure"),
        pytest.param((1501.0, 1499.0), False, id="sure"),
        pytest.param((1000.0, 1005.0), False, id="as slow"),
    ],
)
def test_it_does_so_only_for_a_leader_that_seems_faster(rates: tuple[float, ...], does: bool) -> None:
    records = [*searched({BASE: 1000.0, TWO: 1500.0}), *in_rounds({BASE: (1000.0, 1001.0), TWO: rates})]
    assert confirming(so_far(records, left_s=5.0)).needs_all_time is does


@pytest.mark.parametrize(
    ("swing", "left_s", "least"),
    [
        pytest.param(1.0, 12.0, LITTLE, id="it is known already"),
        pytest.param(30.0, 199.0, LITTLE, id="there is time for the runs that it takes"),
        pytest.param(60.0, 30.0, NEXT_TO_NOTHING, id="there is not"),
    ],
)
def test_finalists_run_on_for_less_where_the_leader_cannot_be_known_well_in_time(
    swing: float, left_s: float, least: float
) -> None:
    rates = {BASE: (1000.0, 1001.0), TWO: (1500.0 + swing, 1500.0 - swing)}
    now = confirming(so_far([*SEARCHED[:2], *in_rounds(rates)], left_s=left_s))
    round_s = partial(now.timetable.round_s, limit_s=now.run_limit_s, given_s=LIMIT_S)
    assert rounds_so_far(now, round_s).least_at_stake == least


@pytest.mark.parametrize(("records", "is_clear"), [(rounds(2), True), (rounds(1), False), ([], False)])
def test_the_baseline_runs_on_until_it_is_clear_that_the_leader_is_faster(
    records: Sequence[TrialRecord], is_clear: bool
) -> None:
    now = confirming(so_far([*SEARCHED, *records]))
    round_s = partial(now.timetable.round_s, limit_s=LIMIT_S, given_s=LIMIT_S)
    assert rounds_so_far(now, round_s).is_clear is is_clear


def test_it_runs_on_until_it_is_known_by_about_how_much() -> None:
    """With two runs of the baseline as far apart, a search ended with "somewhere between 4.8 and 20" and with a seventh
    of its budget left."""
    rates = {BASE: (33.0, 15.0), TWO: (220.0, 235.0)}
    now = confirming(so_far([*searched({BASE: 24.0, TWO: 230.0}), *in_rounds(rates)]))
    round_s = partial(now.timetable.round_s, limit_s=LIMIT_S, given_s=LIMIT_S)
    assert now.is_worthwhile(TWO)
    assert not rounds_so_far(now, round_s).is_clear
    assert BASE in racing(now, LIMIT_S)


def test_whether_the_baseline_is_slower_matters_however_little_it_is() -> None:
    close = {BASE: (1510.0, 1490.0, 1495.0), TWO: (1490.0, 1510.0, 1505.0)}
    now = confirming(so_far([*searched({BASE: 1500.0, TWO: 1510.0}), *in_rounds(close)]))
    assert now.leader == TWO
    assert not is_decided(now, [BASE, TWO])
    assert is_decided(now, [TWO])


def test_there_is_an_end_to_rounds() -> None:
    luck = random.Random(0)
    rates = [1000.0 * luck.lognormvariate(0, 0.2) for _ in range(MOST_ROUNDS)]
    assert is_decided(confirming(so_far([*SEARCHED[:1], *in_rounds({BASE: rates})])), [BASE])
    assert not is_decided(confirming(so_far([*SEARCHED[:1], *in_rounds({BASE: rates[:-1]})])), [BASE])


def test_nobody_races_once_it_is_decided_or_there_is_no_time() -> None:
    assert racing(confirming(so_far([*SEARCHED, *rounds(1)])), LIMIT_S) != []
    assert racing(confirming(so_far([*SEARCHED, *rounds(2)])), LIMIT_S) == []
    assert racing(confirming(so_far([*SEARCHED, *rounds(1)], left_s=1.0)), LIMIT_S) == []
    study = so_far([*SEARCHED, *rounds(2)])
    step = begin_round(study, session_at(study, Exploring.of(study)))
    assert step.session.stage == Concluding()
    assert step.stands is not None
    assert (step.stands.config, step.stands.word) == (TWO, "unconfirmed")


# Who is out


def slow_first(config: TrainConfig, first_step_s: float, number: int) -> TrialRecord:
    run = ran(config, 1500.0, Purpose.CONFIRM, round_number=number)
    warm_up = run.result.warm_up
    assert warm_up is not None
    slow = warm_up.model_copy(update={"first_step_s": first_step_s})
    return run.model_copy(update={"result": run.result.model_copy(update={"warm_up": slow})})


@pytest.mark.parametrize(("count", "is_out"), [(FULL_ROUNDS - 1, False), (FULL_ROUNDS, True)])
def test_who_breaks_a_constraint_is_out_once_it_has_had_its_rounds(count: int, is_out: bool) -> None:
    runs = [slow_first(TWO, 3.0, number + 1) for number in range(count)]
    records = [*SEARCHED, *in_rounds({BASE: CALM[BASE][:count]}), *runs]
    study = so_far(records, sections={"constraints": ["first_step_s <= 2s"]})
    left = without_violators(confirming(study))
    assert (TWO not in left.now) is is_out
    assert FOUR in left.now
    if is_out:
        assert [check.name for check in left.refused[TWO]] == ["first_step_s <= 2s"]


# Who joins


USELESS = BF16_TWO
RICH = searched({BASE: 1000.0, USELESS: 1502.0, TWO: 1500.0, BF16: 1000.0})
TWO_ROUNDS = in_rounds({BASE: CALM[BASE][:2], USELESS: CALM[TWO][:2]})


def test_the_leader_without_what_may_gain_nothing_joins() -> None:
    now = confirming(so_far([*RICH, *TWO_ROUNDS]), USELESS)
    assert simpler_finalist(now, LIMIT_S) == TWO
    step = after_round(now.study, session_at(now.study, a_round(), USELESS))
    assert step.action is None
    assert step.session.confirmation is not None
    assert step.session.confirmation.finalists.now == (USELESS, TWO)


def test_not_before_the_leader_has_had_its_rounds() -> None:
    one = in_rounds({BASE: CALM[BASE][:1], USELESS: CALM[TWO][:1]})
    assert simpler_finalist(confirming(so_far([*RICH, *one]), USELESS), LIMIT_S) is None


def test_not_where_it_is_a_finalist_or_was_or_has_failed() -> None:
    assert simpler_finalist(confirming(so_far([*RICH, *TWO_ROUNDS]), USELESS, TWO), LIMIT_S) is None
    now = confirming(so_far([*RICH, *TWO_ROUNDS]), USELESS)
    was = now.with_finalists(now.finalists.adding(TWO).rejecting(TWO))
    assert simpler_finalist(was, LIMIT_S) is None
    crashed = [*RICH[:2], ran(TWO, TrialStatus.CRASHED), RICH[3], *TWO_ROUNDS]
    assert simpler_finalist(confirming(so_far(crashed), USELESS), LIMIT_S) is None


def test_not_after_the_confirmations_share() -> None:
    study = so_far([*RICH, *TWO_ROUNDS])
    late = dataclasses.replace(study, budget=dataclasses.replace(study.budget, elapsed_s=10.0))
    assert has_had_its_share(late)
    assert simpler_finalist(confirming(late, USELESS), LIMIT_S) is None


def test_only_where_there_is_time_for_its_rounds_and_for_its_trial_where_it_had_none() -> None:
    def with_left_s(records: Sequence[TrialRecord], seconds: float) -> TrainConfig | None:
        return simpler_finalist(confirming(so_far(records, left_s=seconds), USELESS), LIMIT_S)

    def needed_s(records: Sequence[TrialRecord]) -> float:
        """By halving: how much has to be left."""
        low_s, high_s = 1.0, 200.0
        for _ in range(30):
            middle_s = (low_s + high_s) / 2
            low_s, high_s = (low_s, middle_s) if with_left_s(records, middle_s) else (middle_s, high_s)
        return high_s

    known, unknown = [*RICH, *TWO_ROUNDS], [RICH[0], RICH[1], RICH[3], *TWO_ROUNDS]
    with_trial_s, without_s = needed_s(unknown), needed_s(known)
    now = confirming(so_far(unknown, left_s=with_trial_s), USELESS)
    trial_s = now.study.costs.run_s(TWO, now.run_limit_s)
    assert with_trial_s - without_s == pytest.approx(trial_s, rel=0.2)
    for_rounds_s = confirming(so_far(known, left_s=without_s), USELESS)
    rounds_s = FULL_ROUNDS * for_rounds_s.timetable.round_s([BASE, USELESS, TWO], for_rounds_s.run_limit_s, LIMIT_S)
    assert for_rounds_s.for_rounds_s == pytest.approx(rounds_s, rel=0.01)


def test_what_was_not_tried_has_its_trial_first() -> None:
    study = so_far([RICH[0], RICH[1], RICH[3], *TWO_ROUNDS])
    step = after_round(study, session_at(study, a_round(), USELESS))
    assert isinstance(step.action, Try)
    assert step.action.request.config == TWO
    assert step.session.planned == (TWO,)
    assert step.session.stage == Trying(TWO)
    now = confirming(study, USELESS)
    expected_s = study.costs.run_s(TWO, now.run_limit_s)
    assert step.action.request.time_limit_s == now.run_limit_s
    assert step.action.patience_s == step.action.deadline_s == PATIENCE * expected_s + PATIENCE_S
    late = confirming(so_far(study.records, left_s=17.0), USELESS)
    assert trial_of(late, TWO).deadline_s == late.for_rounds_s < trial_of(now, TWO).deadline_s


@pytest.mark.parametrize(
    ("trial", "joins"),
    [
        pytest.param([ran(TWO, 1500.0)], True, id="measured"),
        pytest.param([ran(TWO, TrialStatus.CRASHED)], False, id="failed"),
        pytest.param([], False, id="another session runs it"),
    ],
)
def test_and_joins_where_that_has_measured_it(trial: Sequence[TrialRecord], joins: bool) -> None:
    study = so_far([RICH[0], RICH[1], RICH[3], *TWO_ROUNDS, *trial])
    step = after_its_trial(study, session_at(study, Trying(TWO), USELESS), Trying(TWO))
    assert step.session.confirmation is not None
    assert step.session.confirmation.finalists.now == ((USELESS, TWO) if joins else (USELESS,))


# Whose tests are due


FASTER = searched({BASE: 1000.0, BF16: 1500.0})
FASTER_ROUNDS = in_rounds({BASE: CALM[BASE], BF16: CALM[TWO]})
OF_TWO = FASTER_ROUNDS[:4]


def test_the_leaders_are_due_once_it_is_faster_beyond_doubt() -> None:
    assert to_test(confirming(so_far([*FASTER, *OF_TWO]))) == BF16
    assert to_test(confirming(so_far([*FASTER, *OF_TWO[:2]]))) is None, "one round"
    slower = in_rounds({BASE: CALM[BASE][:2], BF16: (900.0, 905.0)})
    assert to_test(confirming(so_far([*FASTER, *slower]))) is None
    assert to_test(confirming(so_far(FASTER))) is None, "no leader yet"


def test_or_where_the_baseline_may_not_stand() -> None:
    doubtful = in_rounds({BASE: (1000.0, 1100.0), BF16: (1100.0, 1000.0)})
    assert to_test(confirming(so_far([*FASTER, *doubtful]))) is None
    slow_start = [slow_first(BASE, 3.0, number) for number in (1, 2)]
    records = [*FASTER, *slow_start, *in_rounds({BF16: (1100.0, 1000.0)})]
    now = confirming(so_far(records, sections={"constraints": ["first_step_s <= 2s"]}))
    assert not now.baseline_may_stand
    assert to_test(now) == BF16
    one_round = so_far([*FASTER, slow_start[0], records[-2]], sections={"constraints": ["first_step_s <= 2s"]})
    assert to_test(confirming(one_round)) is None


def test_what_needs_none_or_has_had_them_is_not_watched_runs() -> None:
    assert to_test(confirming(so_far([*SEARCHED[:2], *rounds(2)]))) is None
    assert to_test(confirming(so_far([*FASTER, *OF_TWO, *watched_runs(BF16)]))) is None


def test_not_while_a_part_of_it_has_yet_to_run() -> None:
    searched_too = searched({BASE: 1000.0, BF16_TWO: 1600.0, TWO: 1300.0, BF16: 1500.0})
    both = in_rounds({BASE: CALM[BASE][:2], BF16_TWO: (1600.0, 1601.0), BF16: (None, 1500.0)})
    assert to_test(confirming(so_far([*searched_too, *both]), BF16_TWO, BF16)) is None
    done = in_rounds({BASE: CALM[BASE][:2], BF16_TWO: (1600.0, 1601.0), BF16: (1499.0, 1500.0)})
    assert to_test(confirming(so_far([*searched_too, *done]), BF16_TWO, BF16)) == BF16_TWO
    other = in_rounds({BASE: CALM[BASE][:2], BF16_TWO: (1600.0, 1601.0), FOUR: (None, 1500.0)})
    assert to_test(confirming(so_far([*searched_too, *other]), BF16_TWO, FOUR)) == BF16_TWO, "FOUR is no part of it"


def test_only_where_there_is_time_for_them_and_the_soak() -> None:
    needed_s = confirming(so_far([*FASTER, *OF_TWO])).timetable.tests_and_soak_s(BF16)
    assert to_test(confirming(so_far([*FASTER, *OF_TWO], left_s=needed_s + 0.01))) == BF16
    assert to_test(confirming(so_far([*FASTER, *OF_TWO], left_s=needed_s - 0.01))) is None


def test_they_run_one_after_the_other_and_then_the_search_may_go_on() -> None:
    study = so_far([*FASTER, *OF_TWO])
    due = after_round(study, session_at(study, a_round(), BF16))
    assert due.session.stage == session.Testing(BF16)
    first = decide(study, due.session)
    assert isinstance(first.action, actions.Test)
    assert (first.action.purpose, first.action.request.config) == (Purpose.REFERENCE, BASE)
    referenced = so_far([*FASTER, *OF_TWO, watched_runs(BF16)[0]])
    second = decide(referenced, first.session)
    assert isinstance(second.action, actions.Test)
    assert (second.action.purpose, second.action.request.config) == (Purpose.PROBE, BF16)
    done = so_far([*FASTER, *OF_TWO, *watched_runs(BF16)])
    over = run_tests(done, second.session, session.Testing(BF16))
    assert over.session.stage == Exploring.of(done)
    assert isinstance(decide(done, second.session).action, Measure)


def test_who_fails_them_makes_way() -> None:
    died = {"status": TrialStatus.DIVERGED, "failure": Failure(reason="the loss is nan")}
    records = [*searched({BASE: 1000.0, BF16: 1500.0, TWO: 1200.0}), *OF_TWO]
    study = so_far([*records, *watched_runs(BF16, **died)])
    step = run_tests(study, session_at(study, session.Testing(BF16), BF16), session.Testing(BF16))
    assert step.session.confirmation is not None
    assert step.session.confirmation.finalists.now == (TWO,)
    refusing = step.session.confirmation.finalists.refused[BF16]
    assert "the loss is nan" in {check.detail for check in refusing if check.name == "probe"}
