"""One run of each configuration before the rounds tells how much runs differ, and no rate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autotune.stats import Rounds
from autotune.stats.noise import Scale

CALM = [[0.0, 1.0], [0.001, 1.001]]


def half_width(rounds: Rounds) -> float:
    interval = rounds.throughput(1).interval
    assert interval is not None
    return math.log(interval.high / interval.low) / 2


@pytest.mark.parametrize("far", [0.0, 0.2])
def test_it_moves_neither_rate_nor_ratio_much(far: float) -> None:
    with_it = Rounds(CALM, candidates=[1], before=[0.0, 1.0 + far])
    assert with_it.throughput(1).value == pytest.approx(Rounds(CALM, candidates=[1]).throughput(1).value, rel=0.001)
    assert with_it.compare(1, 0).ratio.value == pytest.approx(math.e, rel=0.001)


def test_one_that_agrees_narrows_and_one_that_does_not_widens() -> None:
    without = half_width(Rounds(CALM, candidates=[1]))
    assert half_width(Rounds(CALM, candidates=[1], before=[0.0005, 1.0005])) < 0.7 * without
    assert half_width(Rounds(CALM, candidates=[1], before=[0.0005, 1.02])) > 1.5 * without


def test_where_there_was_none_nothing_changes() -> None:
    assert half_width(Rounds(CALM, candidates=[1], before=[math.nan, math.nan])) == half_width(
        Rounds(CALM, candidates=[1])
    )


def test_a_run_after_the_rounds_keeps_it() -> None:
    known = Rounds(CALM, candidates=[1], before=[0.0005, 1.0005]).with_run(1, 1.0)
    assert half_width(known) < half_width(Rounds(CALM, candidates=[1]).with_run(1, 1.0))


def test_a_deviation_sharpens_a_scale() -> None:
    assert Scale.unknown().learnt_from_deviation(0.0).middle() < Scale.unknown().middle()
    assert Scale.unknown().learnt_from_deviation(0.1).middle() > Scale.unknown().middle()


def test_intervals_hold_the_truth_though_the_best_of_many_was_taken() -> None:
    """The best of eight runs before the rounds, each 2 % from the next: 120 studies of two rounds."""
    luck, held = np.random.default_rng(1), 0
    for _ in range(120):
        logs = np.array([0.0, 1.0]) + 0.02 * luck.normal(size=(2, 2))
        before = [0.02 * luck.normal(), 1.0 + 0.02 * luck.normal(size=8).max()]
        interval = Rounds(logs, candidates=[1], before=before).throughput(1).interval
        assert interval is not None
        held += interval.low <= math.e <= interval.high
    assert held >= 0.93 * 120


def test_one_that_has_just_joined_does_not_hide_what_the_others_tell() -> None:
    """It has run in one round, so that no contrast with it tells anything."""
    logs = np.array([[0.0, 1.0, math.nan, 2.0], [0.001, 1.001, 0.5, 2.002], [0.0, 1.0, math.nan, 2.0]])
    assert Rounds(logs).spread < 0.005
