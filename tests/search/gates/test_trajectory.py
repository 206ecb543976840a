"""Losses over the samples that a run has learnt from."""

from __future__ import annotations

import math

import pytest
from support.runs import run, without_steps

from autotune.search.gates.trajectory import Trajectory


def test_steps_of_any_size_are_weighed_by_their_samples() -> None:
    trajectory = Trajectory(losses=[4.0, 1.0], samples=[10, 30])
    assert trajectory.seen == 40
    assert trajectory.mean_loss(0, 40) == pytest.approx((10 * 4.0 + 30 * 1.0) / 40)


def test_a_step_that_straddles_an_end_counts_with_its_share() -> None:
    trajectory = Trajectory.of(run([5.0, 2.0, 1.0], samples=40))
    assert trajectory.mean_loss(60, 120) == pytest.approx((20 * 2.0 + 40 * 1.0) / 60)
    assert trajectory.mean_loss(50, 60) == 2.0


def test_a_step_that_the_scaler_skipped_taught_nothing() -> None:
    trajectory = Trajectory.of(run([9.0, 2.0, 9.0, 1.0], skipped=[True, False, True, False]))
    assert list(trajectory.losses) == [2.0, 1.0]
    assert trajectory.seen == 64


def test_windows_share_out_the_samples_equally() -> None:
    trajectory = Trajectory.of(run([8.0, 6.0, 4.0, 2.0, 100.0]))
    assert trajectory.windows(4, 128) == [8.0, 6.0, 4.0, 2.0]
    assert trajectory.windows(2, 128) == [7.0, 3.0]


def test_windows_cut_through_steps() -> None:
    trajectory = Trajectory.of(run([3.0, 6.0], samples=30))
    assert trajectory.windows(4, 60) == [3.0, 3.0, 6.0, 6.0]
    assert trajectory.windows(3, 60) == pytest.approx([3.0, 4.5, 6.0])


def test_two_runs_with_other_steps_meet_at_the_same_samples() -> None:
    """One step of 64 teaches what two of 32 do."""
    coarse, fine = Trajectory.of(run([3.0, 1.0], samples=64)), Trajectory.of(run([4.0, 2.0, 1.5, 0.5], samples=32))
    assert coarse.seen == fine.seen
    assert coarse.windows(2, 128) == fine.windows(2, 128)


def test_samples_that_a_run_has_not_seen_have_no_loss() -> None:
    trajectory = Trajectory.of(run([2.0], samples=32))
    assert math.isnan(trajectory.mean_loss(32, 64))
    assert math.isnan(Trajectory.of(without_steps()).mean_loss(0, 1))
    assert Trajectory.of(without_steps()).seen == 0


def test_a_loss_that_is_not_a_number_stays_in_its_window() -> None:
    windows = Trajectory.of(run([2.0, math.nan, 1.0, 1.0])).windows(2, 128)
    assert math.isnan(windows[0])
    assert windows[1] == 1.0
