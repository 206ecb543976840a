"""A figure of runs that were still becoming faster is not confirmed."""

from __future__ import annotations

import pytest
from support.runs import run

from autotune.records import Block, TrialResult, WarmUp
from autotune.search.gates import steady_state


def warmed(*step_s: float, settled: bool) -> TrialResult:
    """A run with one block a step."""
    blocks = [Block(steps=1, samples=32, seconds=seconds, phases={}) for seconds in step_s]
    warm_up = WarmUp(steps=2, seconds=2.0, first_step_s=1.0, settled=settled)
    return run(blocks=blocks).model_copy(update={"warm_up": warm_up})


def test_runs_that_had_settled_pass() -> None:
    check = steady_state([warmed(1.0, 1.0, settled=True)] * 4)
    assert check.passed
    assert check.conclusive
    assert check.value == 0


def test_most_runs_were_still_becoming_faster() -> None:
    falling = warmed(1.0, 0.8, 0.6, 0.5, settled=False)
    check = steady_state([falling, falling, warmed(0.5, 0.5, settled=True)])
    assert not check.passed
    assert check.value == pytest.approx(2 / 3)
    assert "in 2 of 3 runs" in check.detail
    assert "larger budget" in check.detail


def test_one_run_of_three_may_have_been_disturbed() -> None:
    falling, steady = warmed(1.0, 0.8, 0.6, 0.5, settled=False), warmed(0.5, 0.5, settled=True)
    check = steady_state([falling, steady, steady])
    assert check.passed
    assert "in 1 of 3 runs" in check.detail


def test_steps_too_long_for_a_warm_up_to_tell_are_told_by_the_timed_ones() -> None:
    assert steady_state([warmed(5.0, 5.1, settled=False)] * 3).passed
    assert not steady_state([warmed(5.0, 4.0, settled=False)] * 3).passed


def test_a_single_block_after_an_unsettled_warm_up_tells_nothing() -> None:
    assert not steady_state([warmed(5.0, settled=False)]).passed


def test_records_without_a_warm_up_cannot_tell() -> None:
    check = steady_state([run()])
    assert check.passed
    assert not check.conclusive
