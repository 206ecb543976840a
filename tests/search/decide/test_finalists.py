"""Who is measured again, and who takes whose place."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
from support.deciding import BASE, BF16, BF16_TWO, FOUR, TWO, ran, searched, so_far

from autotune.config import TrainConfig
from autotune.records import Check, TrialStatus
from autotune.search.budget import BudgetNow
from autotune.search.decide.finalists import Finalists, choose_finalists
from autotune.search.earning import Compare, Gain, worth_confirming
from autotune.search.performance import PerformanceModel
from autotune.search.policy import EVEN, LITTLE

BF16_FOUR = FOUR.replace(amp_dtype="bf16")
AHEAD = BF16_TWO.replace(prefetch_factor=4)
RATES = {BASE: 1000.0, BF16_FOUR: 1900.0, BF16_TWO: 1700.0, BF16: 1500.0, FOUR: 1400.0, TWO: 1200.0}
ALL_OF_IT = BudgetNow(total_s=300.0, elapsed_s=100.0, use_all=True)
"""All three run."""
STUDY = so_far(searched(RATES), budget=ALL_OF_IT)


def check(name: str) -> Check:
    return Check(name=name, passed=False, value=0, limit=1)


def finalists(*now: TrainConfig) -> Finalists:
    return Finalists(model=STUDY.model, now=now, ever=now)


def test_the_three_fastest_are_without_the_baseline() -> None:
    assert choose_finalists(STUDY.measured, BASE) == [BF16_FOUR, BF16_TWO, BF16]


def test_one_of_them_is_at_the_baselines_effective_batch_size() -> None:
    larger = [config.replace(grad_accum_steps=8) for config in (BF16_FOUR, BF16_TWO, BF16)]
    records = searched({BASE: 1000.0, larger[0]: 1900.0, larger[1]: 1700.0, larger[2]: 1500.0, TWO: 1200.0})
    assert choose_finalists(so_far(records).measured, BASE) == [larger[0], larger[1], TWO]


def test_what_was_stopped_early_is_none_unless_there_is_nothing_else() -> None:
    pruned = ran(BF16_FOUR, 1900.0, status=TrialStatus.PRUNED)
    assert choose_finalists(so_far([*searched({BASE: 1000.0, TWO: 1200.0}), pruned]).measured, BASE) == [TWO]
    assert choose_finalists(so_far([*searched({BASE: 1000.0}), pruned]).measured, BASE) == [BF16_FOUR]


@pytest.mark.parametrize(("limit", "is_out"), [(1.0 / 1.04, False), (1.0 / 1.06, True)])
def test_what_is_clearly_outside_a_constraint_is_none(limit: float, is_out: bool) -> None:
    first_step_s = ran(TWO, 1200.0).result.warm_up.first_step_s  # type: ignore[union-attr]
    text = f"first_step_s <= {first_step_s * limit:.9f}s"
    study = so_far(searched({BASE: 9000.0, TWO: 1200.0, FOUR: 9000.0}), sections={"constraints": [text]})
    assert (TWO not in choose_finalists(study.measured, BASE, study.constraints)) is is_out
    assert FOUR in choose_finalists(study.measured, BASE, study.constraints)


class Known:
    """A model that knows the rates."""

    def __init__(self, rates: dict[TrainConfig, float], noise: float = 0.001) -> None:
        self._rates = rates
        self.noise = noise

    def likely(self, config: TrainConfig) -> float:
        return math.log(self._rates[config])

    def compare(self, one: TrainConfig, other: TrainConfig) -> tuple[float, float]:
        return self.likely(one) - self.likely(other), 0.001


@pytest.mark.parametrize(
    ("part", "now"),
    [
        pytest.param(1503.0, (BF16_FOUR, FOUR, BF16_TWO), id="0.5 % behind"),
        pytest.param(1480.0, (BF16_FOUR, BF16_TWO, AHEAD), id="2 % behind"),
    ],
)
def test_beside_the_best_runs_its_simpler_form_that_may_be_as_good(part: float, now: tuple[TrainConfig, ...]) -> None:
    rates = {BASE: 1000.0, BF16_FOUR: 1510.0, BF16_TWO: 1508.0, AHEAD: 1506.0, FOUR: part, BF16: 1000.0}
    known = Finalists(model=cast(PerformanceModel, Known(rates)))
    study = so_far(searched(rates), budget=ALL_OF_IT)
    elsewhere = TWO.replace(micro_batch_size=8)
    assert known.refusing(study, elsewhere, [check("memory_headroom")]).now == now


def test_who_is_rejected_leaves_its_place_empty() -> None:
    left = finalists(TWO, FOUR).rejecting(TWO)
    assert (left.now, left.ever, left.refused) == ((FOUR,), (TWO, FOUR), {})
    assert not left.may_join(STUDY, TWO)
    later = Finalists.of(STUDY).rejecting(BF16).refusing(STUDY, TWO, [check("memory_headroom")])
    assert BF16 not in later.now, "not when others make way either"
    assert finalists(TWO, FOUR).rejecting(TWO, [check("soak")]).refused == {TWO: [check("soak")]}


def test_who_is_refused_makes_way_for_the_next_fastest() -> None:
    chosen = Finalists.of(STUDY)
    assert chosen.now == (BF16_FOUR, BF16_TWO, BF16)
    without = chosen.refusing(STUDY, BF16_FOUR, [check("memory_headroom")])
    assert FOUR in without.now
    assert BF16_FOUR not in without.now
    assert set(without.ever) == {BF16_FOUR, *chosen.now, *without.now}


def test_what_computes_the_same_is_refused_with_it() -> None:
    without = Finalists.of(STUDY).refusing(STUDY, BF16_FOUR, [check("memory_headroom")])
    assert without.now == (FOUR, TWO)


def test_another_micro_batch_is_refused_only_for_what_low_precision_is_to_blame_for() -> None:
    other = BF16.replace(micro_batch_size=16, grad_accum_steps=8)
    for name, may_join in (("loss_rise", False), ("memory_headroom", True)):
        refused = finalists(BF16).refusing(STUDY, BF16, [check(name)])
        assert refused.may_join(STUDY, other) is may_join
        assert refused.may_join(STUDY, TWO.replace(micro_batch_size=16)), "not in that precision"


def test_a_constraint_that_refuses_leaves_other_ways_to_feed_the_same_arithmetic() -> None:
    study = so_far(searched(RATES), sections={"constraints": ["data_wait_fraction <= 0.1"]}, budget=ALL_OF_IT)
    refused = finalists(BF16_FOUR).refusing(study, BF16_FOUR, [check("data_wait_fraction <= 0.1")])
    assert refused.now == (BF16_TWO, BF16, FOUR)


def test_who_may_join_is_new_and_has_not_failed() -> None:
    one = finalists(TWO)
    assert one.may_join(STUDY, FOUR)
    assert not one.may_join(STUDY, TWO)
    assert not one.may_join(so_far([*searched(RATES), ran(FOUR, TrialStatus.OOM)]), FOUR)
    joined = one.adding(FOUR)
    assert (joined.now, joined.ever) == ((TWO, FOUR), (TWO, FOUR))


# Who is worth the rounds


def chosen_of(rates: dict[TrainConfig, float], noise: float = 0.001, **study: Any) -> tuple[TrainConfig, ...]:
    known = Finalists(model=cast(PerformanceModel, Known(rates, noise)))
    elsewhere = TWO.replace(micro_batch_size=8)
    return known.refusing(so_far(searched(rates), **study), elsewhere, [check("memory_headroom")]).now


CLOSE = {BASE: 1000.0, BF16_TWO: 1520.0, BF16_FOUR: 1515.0, BF16: 1000.0, FOUR: 1000.0}


def test_who_is_surely_as_good_or_worse_runs_no_rounds() -> None:
    assert chosen_of(CLOSE) == (BF16_TWO,)
    assert chosen_of(CLOSE, budget=ALL_OF_IT)[:2] == (BF16_TWO, BF16_FOUR)


def test_where_time_is_short_another_may_have_to_stand_in() -> None:
    assert chosen_of(CLOSE, left_s=5.0)[:2] == (BF16_TWO, BF16_FOUR)


@pytest.mark.parametrize(("noise", "runs"), [(0.9 * EVEN, False), (1.1 * EVEN, True)])
def test_where_runs_differ_much_all_of_them_run(noise: float, runs: bool) -> None:
    assert (BF16_FOUR in chosen_of(CLOSE, noise)) is runs


@pytest.mark.parametrize(("noise", "back"), [(0.9 * EVEN, ()), (1.1 * EVEN, (BF16_FOUR, BF16))])
def test_who_was_left_out_is_back_once_runs_are_seen_to_differ(noise: float, back: tuple[TrainConfig, ...]) -> None:
    known = Finalists(model=cast(PerformanceModel, Known(CLOSE)))
    study, elsewhere = so_far(searched(CLOSE)), TWO.replace(micro_batch_size=8)
    chosen = known.refusing(study, elsewhere, [check("memory_headroom")])
    assert (chosen.now, chosen.left_out) == ((BF16_TWO,), (BF16_FOUR, BF16))
    later = so_far(searched(CLOSE))
    later.__dict__["model"] = Known(CLOSE, noise)
    assert chosen.with_left_out(later).now == (BF16_TWO, *back)
    assert chosen.with_left_out(later).ever == (BF16_TWO, *back)


def gains(deviation: float, rates: dict[TrainConfig, float] = CLOSE) -> Compare:
    return lambda one, other: Gain.of(math.log(rates[one] / rates[other]), deviation, "model")


@pytest.mark.parametrize(("deviation", "runs"), [(0.01, False), (0.1, True)])
def test_who_may_be_much_better_runs_them(deviation: float, runs: bool) -> None:
    kept = worth_confirming([BF16_TWO, BF16_FOUR], BASE, gains(deviation), LITTLE)
    assert (BF16_FOUR in kept) is runs


def test_of_two_that_are_as_good_the_one_with_fewer_loader_processes_runs_them() -> None:
    rates = {BASE: 1000.0, BF16_FOUR: 1510.0, BF16_TWO: 1500.0}
    assert worth_confirming([BF16_FOUR, BF16_TWO], BASE, gains(0.001, rates), LITTLE) == [BF16_TWO]


def test_of_two_that_are_as_good_the_simpler_one_runs_them() -> None:
    rates = {BASE: 1000.0, BF16_FOUR: 1510.0, FOUR: 1500.0}
    assert worth_confirming([BF16_FOUR, FOUR], BASE, gains(0.01, rates), LITTLE) == [FOUR]


@pytest.mark.parametrize(("deviation", "runs"), [(0.02, True), (0.01, False)])
def test_a_part_that_is_expected_to_be_worse_runs_them_unless_that_is_known(deviation: float, runs: bool) -> None:
    """Whether what it leaves out earns its place, the rounds decide."""
    rates = {BASE: 1000.0, BF16_FOUR: 1550.0, FOUR: 1500.0}
    kept = worth_confirming([BF16_FOUR, FOUR], BASE, gains(deviation, rates), LITTLE)
    assert kept == ([BF16_FOUR, FOUR] if runs else [BF16_FOUR])


def test_one_at_the_baselines_effective_batch_size_runs_beside_one_that_is_not() -> None:
    larger = BF16_FOUR.replace(grad_accum_steps=8)
    assert chosen_of({BASE: 1000.0, larger: 3000.0, BF16_TWO: 1500.0}) == (larger, BF16_TWO)


def test_what_is_lost_on_average_grows_with_what_is_not_known() -> None:
    assert Gain.of(0.0, 0.02, "model").at_stake == pytest.approx(0.02 / math.sqrt(2 * math.pi), rel=1e-3)
    assert Gain.of(0.1, 0.001, "model").at_stake == pytest.approx(0.1, rel=1e-3)
    assert Gain.of(-0.1, 0.01, "model").at_stake == pytest.approx(0.0, abs=1e-6)
    assert math.isinf(Gain(1.0, None, "model").at_stake)


def test_where_the_last_has_failed_the_next_take_its_place() -> None:
    assert finalists(TWO, FOUR).without_failed(STUDY, TWO).now == (FOUR,)
    left = finalists(BF16_FOUR).without_failed(STUDY, BF16_FOUR)
    assert BF16_FOUR not in left.now
    assert left.now
