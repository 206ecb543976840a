"""Who runs in the next round: each rule with the smallest picture of a study that it decides."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from autotune.config import TrainConfig
from autotune.search.decide.next_round import RoundsSoFar, next_round
from autotune.search.policy import FULL_ROUNDS, LITTLE

BASELINE = TrainConfig(micro_batch_size=8)
LEADER, RIVAL, THIRD = (TrainConfig(micro_batch_size=size) for size in (16, 32, 64))
A_RUN_S = 10.0


def round_s(configs: Sequence[TrainConfig]) -> float:
    return A_RUN_S * len(configs)


def so_far(
    *,
    leader: TrainConfig | None = LEADER,
    finalists: Sequence[TrainConfig] = (LEADER, RIVAL, THIRD),
    rounds: dict[TrainConfig, int] | int = FULL_ROUNDS,
    runs: dict[TrainConfig, int] | None = None,
    at_stake: dict[TrainConfig, float] | None = None,
    is_clear: bool = True,
) -> RoundsSoFar:
    """All have run as often, and all are close, unless it is said otherwise."""
    known = [BASELINE, *finalists]
    usual = rounds if isinstance(rounds, int) else FULL_ROUNDS
    each = dict.fromkeys(known, usual) | (rounds if isinstance(rounds, dict) else {})
    return RoundsSoFar(
        baseline=BASELINE,
        leader=leader,
        finalists=finalists,
        rounds=each,
        runs=each | (runs or {}),
        at_stake=dict.fromkeys(finalists, 2 * LITTLE) | {LEADER: 0.0} | (at_stake or {}),
        least_at_stake=LITTLE,
        is_clear=is_clear,
    )


def test_the_first_round_is_of_all() -> None:
    first = so_far(leader=None, rounds=0, is_clear=False)
    assert next_round(first, 1000.0, round_s) == [BASELINE, LEADER, RIVAL, THIRD]


def test_where_the_first_round_of_all_leaves_no_time_for_a_second_the_likely_best_runs() -> None:
    first = so_far(leader=None, rounds=0, is_clear=False)
    enough_s = A_RUN_S * (4 + 2)
    assert next_round(first, enough_s, round_s) == [BASELINE, LEADER, RIVAL, THIRD]
    assert next_round(first, enough_s - 1, round_s) == [BASELINE, LEADER]
    assert next_round(first, 2 * A_RUN_S - 1, round_s) == []


def test_all_run_until_each_has_had_its_rounds() -> None:
    """However little is at stake by one round."""
    one = so_far(rounds=FULL_ROUNDS - 1, at_stake={RIVAL: 0.0, THIRD: 0.0})
    assert next_round(one, 1000.0, round_s) == [BASELINE, LEADER, RIVAL, THIRD]


def test_a_finalist_runs_on_while_something_is_at_stake() -> None:
    two = so_far(is_clear=False, at_stake={RIVAL: 1.1 * LITTLE, THIRD: 0.9 * LITTLE})
    assert next_round(two, 1000.0, round_s) == [BASELINE, LEADER, RIVAL]


@pytest.mark.parametrize("is_clear", [True, False])
def test_the_baseline_runs_in_each_round_until_the_answer_is_clear(is_clear: bool) -> None:
    known = so_far(is_clear=is_clear)
    assert (BASELINE in next_round(known, 1000.0, round_s)) is not is_clear


def test_then_in_half_of_the_leaders_rounds() -> None:
    half = so_far(rounds=3, runs={LEADER: 6})
    fewer = so_far(rounds=3, runs={LEADER: 7})
    assert BASELINE not in next_round(half, 1000.0, round_s)
    assert BASELINE in next_round(fewer, 1000.0, round_s)


def test_one_that_was_added_runs_beside_leader_and_baseline_until_it_has_had_its_rounds() -> None:
    added = so_far(rounds={THIRD: FULL_ROUNDS - 1})
    assert next_round(added, 1000.0, round_s) == [BASELINE, LEADER, THIRD]


def test_where_not_all_fit_it_is_the_closest_rival_or_the_baseline_while_that_is_not_clear() -> None:
    stakes = {RIVAL: 2 * LITTLE, THIRD: 3 * LITTLE}
    assert next_round(so_far(at_stake=stakes), 2 * A_RUN_S, round_s) == [LEADER, THIRD]
    assert next_round(so_far(at_stake=stakes, is_clear=False), 2 * A_RUN_S, round_s) == [BASELINE, LEADER]


def test_a_leader_without_rivals_runs_alone() -> None:
    alone = so_far(at_stake={RIVAL: 0.0, THIRD: 0.0})
    assert next_round(alone, A_RUN_S, round_s) == [LEADER]
    assert next_round(alone, A_RUN_S - 1, round_s) == []


def test_without_finalists_the_baseline_runs() -> None:
    none = so_far(leader=None, finalists=(), rounds=0)
    assert next_round(none, A_RUN_S, round_s) == [BASELINE]
    assert next_round(none, A_RUN_S - 1, round_s) == []
