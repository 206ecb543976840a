"""A figure that no user can rely on is not confirmed."""

from __future__ import annotations

import math

import pytest
from support.runs import run

from autotune.records import Block, TrialResult
from autotune.search.gates import known_speedup, undisturbed_runs
from autotune.stats import Comparison, Estimate, Interval, Outcome


def of_blocks(*disturbed: bool) -> TrialResult:
    blocks = [
        Block(steps=1, samples=32, seconds=1.0, phases={}, disturbances=("contended",) if each else ())
        for each in disturbed
    ]
    return run(blocks=blocks)


def speedup(low: float, high: float) -> Comparison:
    return Comparison(ratio=Estimate(math.sqrt(low * high), Interval(low, high)), outcome=Outcome.FASTER, pairs=2)


@pytest.mark.parametrize(
    ("low", "high", "passed"),
    [(1.9, 2.1, True), (1.1, 4.3, True), (6.2, 2160.44, False), (1e-9, 2.0, False), (0.0, 2.0, False)],
)
def test_a_speed_up_of_which_only_the_direction_is_known(low: float, high: float, *, passed: bool) -> None:
    check = known_speedup(speedup(low, high) if low else Comparison(Estimate(1.0, Interval(0.0, 2.0)), Outcome.TIE, 2))
    assert check.passed is passed
    assert ("larger budget" in check.detail) is not passed


def test_runs_that_were_disturbed_from_beginning_to_end() -> None:
    busy, free = of_blocks(True, True, True), of_blocks(True, False, False)
    assert undisturbed_runs([free, free, busy, busy]).passed
    check = undisturbed_runs([free, busy, busy])
    assert not check.passed
    assert "2 of 3 confirming runs" in check.detail
