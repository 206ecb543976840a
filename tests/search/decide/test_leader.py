"""Who leads: each rule with the smallest rounds that it decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from support.deciding import (
    BASE,
    BF16,
    BF16_TWO,
    FOUR,
    TWO,
    confirming,
    in_rounds,
    ran,
    searched,
    so_far,
    watched_runs,
)

from autotune.config import TrainConfig
from autotune.records import Failure, Memory, Purpose, TrialRecord, TrialStatus
from autotune.search.decide.confirming import Confirming, begin_confirming
from autotune.search.earning import Gain, better_known

GIB = 1 << 30


def after(rates: dict[TrainConfig, Sequence[float | None]], **study: Any) -> Confirming:
    """Rounds of these, after a search that saw them as the first did; all but the baseline are finalists."""
    first = {config: next(rate for rate in each if rate) for config, each in rates.items()}
    records = [*searched(first), *in_rounds(rates)]
    return confirming(so_far(records, **study), *(config for config in rates if config != BASE))


CALM = (1000.0, 1001.0, 999.0)


def times(ratio: float) -> tuple[float, float, float]:
    first, second, third = CALM
    return first * ratio, second * ratio, third * ratio


@pytest.mark.parametrize(("four", "leader"), [(1.4, TWO), (1.6, FOUR)])
def test_the_fastest_does(four: float, leader: TrainConfig) -> None:
    assert after({BASE: CALM, TWO: times(1.5), FOUR: times(four)}).leader == leader


@pytest.mark.parametrize(("four", "leader"), [(1.509, BF16), (1.53, FOUR)])
def test_among_those_within_1_percent_the_smaller_change_does(four: float, leader: TrainConfig) -> None:
    assert after({BASE: CALM, BF16: times(1.5), FOUR: times(four)}).leader == leader


@pytest.mark.parametrize(("four", "leader"), [(1.509, TWO), (1.53, FOUR)])
def test_then_the_one_of_fewer_loader_processes(four: float, leader: TrainConfig) -> None:
    assert after({BASE: CALM, TWO: times(1.5), FOUR: times(four)}).leader == leader


AHEAD = TWO.replace(prefetch_factor=4)
"""As large a change as `TWO`."""


@pytest.mark.parametrize("longer", [TWO, AHEAD])
def test_then_the_one_of_more_rounds(longer: TrainConfig) -> None:
    rates = {config: times(1.5) if config == longer else times(1.5)[:2] for config in (TWO, AHEAD)}
    assert after({BASE: CALM, **rates}).leader == longer


@pytest.mark.parametrize("smaller", [TWO, AHEAD])
def test_then_the_one_of_less_memory(smaller: TrainConfig) -> None:
    def with_memory(run: TrialRecord) -> TrialRecord:
        used = GIB if run.result.config == smaller else 2 * GIB
        memory = Memory(resident_bytes=4 * GIB, resident_growth_bytes=used)
        return run.model_copy(update={"result": run.result.model_copy(update={"memory": memory})})

    records = [*searched({BASE: 1000.0, TWO: 1500.0, AHEAD: 1500.0})]
    records += map(with_memory, in_rounds({BASE: CALM, TWO: times(1.5), AHEAD: times(1.5)}))
    assert confirming(so_far(records), TWO, AHEAD).leader == smaller


@pytest.mark.parametrize(("rich", "leader"), [(1.505, TWO), (1.6, BF16_TWO)])
def test_a_part_of_it_that_is_as_good_does(rich: float, leader: TrainConfig) -> None:
    assert after({BASE: CALM, TWO: times(1.5), BF16_TWO: times(rich)}).leader == leader


def test_what_a_gate_refuses_does_not() -> None:
    now = after({BASE: CALM, TWO: times(1.5), FOUR: times(1.4)})
    assert now.leader == TWO
    failed = ran(TWO, 1500.0, Purpose.CONFIRM, round_number=4, status=TrialStatus.PRUNED)
    diverged = failed.result.steps
    assert diverged is not None
    nan = diverged.model_copy(update={"losses": [float("nan")] * len(diverged.losses)})
    worse = [*now.study.records, failed.model_copy(update={"result": failed.result.model_copy(update={"steps": nan})})]
    again = confirming(so_far(worse), TWO, FOUR)
    assert again.passing == [FOUR]
    assert again.leader == FOUR


def test_nobody_does_before_the_first_round() -> None:
    assert after({BASE: CALM, TWO: (None, None, None, 1500.0)}).leader is None, "none beside the baseline"
    study = so_far(searched({BASE: 1000.0, TWO: 1500.0}))
    assert confirming(study).leader is None
    assert confirming(study).done == 0


def test_of_those_that_were_tested_only_these_do() -> None:
    rates: dict[TrainConfig, Sequence[float | None]] = {BASE: CALM, BF16: times(1.8), TWO: times(1.5)}
    now = after(rates)
    assert (now.leader, now.tested_leader) == (BF16, TWO)
    done = so_far([*now.study.records, *watched_runs(BF16)])
    assert confirming(done, BF16, TWO).tested_leader == BF16


def test_what_is_expected_decides_what_the_rounds_leave_open() -> None:
    """In the search bf16 gained a half; the two rounds saw it now faster, now slower."""
    rates = {BASE: CALM[:2], TWO: (1500.0, 1501.0), BF16_TWO: (1200.0, 1900.0)}
    records = searched({BASE: 1000.0, TWO: 1500.0, BF16: 1500.0, BF16_TWO: 2250.0})
    now = confirming(so_far([*records, *in_rounds(rates)]), TWO, BF16_TWO)
    measured = now.measured.gain(BF16_TWO, TWO)
    assert measured is not None
    assert measured.interval is not None
    gain, expected = now.gain(BF16_TWO, TWO), now.expected(BF16_TWO, TWO)
    assert gain.interval is not None
    assert min(measured.ratio, expected.ratio) < gain.ratio < max(measured.ratio, expected.ratio)
    assert gain.interval.high / gain.interval.low < measured.interval.high / measured.interval.low
    once = confirming(so_far([*records, *in_rounds({BASE: CALM[:1], TWO: (1500.0,)})]), TWO, BF16_TWO)
    tried = once.measured.gain_in_search(BF16_TWO, TWO)
    assert tried is not None
    assert tried.ratio == pytest.approx(1.5)
    assert once.gain(BF16_TWO, TWO) == better_known(tried, once.expected(BF16_TWO, TWO))
    assert once.measured.gain_in_search(BF16_TWO, FOUR) is None, "which had no trial"
    before = confirming(so_far(records), TWO, BF16_TWO)
    assert before.gain(BF16_TWO, TWO) == before.expected(BF16_TWO, TWO), "before a round nobody knows how runs differ"


def test_of_two_that_rest_on_the_same_runs_the_one_that_is_known_better_counts() -> None:
    sharp, vague = Gain.of(0.1, 0.01, "measured"), Gain.of(0.2, 0.02, "model")
    assert better_known(sharp, vague) == sharp
    assert better_known(vague, sharp) == sharp
    assert better_known(None, vague) == vague
    assert better_known(vague, Gain.of(0.0, math.inf, "measured")) == vague, (
        "of a run of a single block nothing is known"
    )


def test_who_an_earlier_session_has_tested_and_refused_is_no_finalist() -> None:
    died = watched_runs(BF16, status=TrialStatus.DIVERGED, failure=Failure(reason="the loss is nan"))
    records = searched({BASE: 1000.0, BF16: 1500.0, TWO: 1200.0})
    study = so_far([*records, *died])
    chosen = begin_confirming(study, confirming(study).expected)
    assert chosen.now == (TWO,)
    assert set(chosen.refused) == {BF16}
    sound = so_far([*records, *watched_runs(BF16)], left_s=10.0)
    assert begin_confirming(sound, confirming(sound).expected).now == (BF16, TWO)


@pytest.mark.parametrize(
    ("gain", "leader"),
    [pytest.param(1.018, TWO, id="it may be luck"), pytest.param(1.2, BF16_TWO, id="it is none")],
)
def test_a_setting_that_gains_no_more_than_luck_would_is_left_out(gain: float, leader: TrainConfig) -> None:
    """The search saw nothing in bf16, and two rounds do, between runs that differ by 2 %."""
    rich = 1500.0 * gain if gain > 1.1 else 1500.0
    records = searched({BASE: 1000.0, BF16: 1001.0, FOUR: 1450.0, TWO: 1500.0, BF16_TWO: rich})
    slow, fast = 0.985, 1.015
    rounds = in_rounds(
        {
            BASE: (1000.0 * slow, 1000.0 * fast),
            TWO: (1500.0 * fast, 1500.0 * slow),
            BF16_TWO: (1500.0 * gain * slow, 1500.0 * gain * fast),
        }
    )
    assert confirming(so_far([*records, *rounds]), TWO, BF16_TWO).leader == leader
