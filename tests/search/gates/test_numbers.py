"""Gates on the numbers: what is not finite, and what fp16 overflows and underflows."""

from __future__ import annotations

import math

import pytest
from support.runs import activation, run, without_steps

from autotune.records import LargestActivation, TrialResult, TrialStatus
from autotune.search.gates import finite_gradients, finite_loss, fp16_range, loss_scale, skipped_steps
from autotune.search.gates.numbers import FP16_MAX

EVERY_THIRD = [step % 3 == 2 for step in range(60)]


def test_finite_losses_pass() -> None:
    check = finite_loss([run(), run([3.0] * 5)])
    assert check.passed
    assert (check.value, check.limit, check.detail) == (0, 0, "7 optimizer steps")


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_one_loss_that_is_not_finite_fails_and_all_are_counted(loss: float) -> None:
    assert not finite_loss([run(), run([2.0, loss])]).passed
    assert finite_loss([run([loss, 1.0]), run([loss])]).value == 2


def test_a_run_that_diverged_counts_with_the_loss_that_it_could_not_report() -> None:
    check = finite_loss([run(), run([2.0, 3.0], status=TrialStatus.DIVERGED)])
    assert not check.passed
    assert check.value == 1


def test_no_loss_at_all_tells_nothing() -> None:
    check = finite_loss([without_steps()])
    assert (check.passed, check.conclusive) == (True, False)


def test_finite_gradients_pass() -> None:
    check = finite_gradients([run([1.0] * 3, norms=[1.0, 2.0, 1e30])])
    assert check.passed
    assert check.conclusive
    assert (check.value, check.limit, check.detail) == (0, 0, "3 optimizer steps")


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_fails_though_all_losses_are(norm: float) -> None:
    check = finite_gradients([run([1.0] * 3, norms=[1.0, norm, norm])])
    assert not check.passed
    assert check.value == 2


def test_an_overflow_that_the_scaler_skipped_has_done_no_harm() -> None:
    assert finite_gradients([run([1.0] * 3, norms=[math.inf, 1.0, 1.0], skipped=[True, False, False])]).passed


@pytest.mark.parametrize("runs", [[], [without_steps()], [run([1.0] * 3)]])
def test_gradients_that_nobody_watched_tell_nothing(runs: list[TrialResult]) -> None:
    check = finite_gradients(runs)
    assert (check.passed, check.conclusive, check.detail) == (True, False, "0 optimizer steps")


def test_a_step_skipped_while_the_scaler_finds_its_scale_is_no_fault() -> None:
    check = skipped_steps([run([1.0] * 20, skipped=[True] * 3 + [False] * 17)], limit=0.05)
    assert check.passed
    assert (check.value, check.limit, check.detail) == (0.0, 0.05, "17 steps")


def test_a_scaler_that_skips_every_third_step_fails() -> None:
    check = skipped_steps([run([1.0] * 60, skipped=EVERY_THIRD)], limit=0.05)
    assert not check.passed
    assert check.value == pytest.approx(1 / 3)


def test_skipped_steps_after_calibration_count_up_to_the_limit() -> None:
    one_in_twenty = [True, False, *[False] * 18, True]
    check = skipped_steps([run([1.0] * 21, skipped=one_in_twenty)], limit=0.05)
    assert check.value == pytest.approx(1 / 20)
    assert check.passed
    assert not skipped_steps([run([1.0] * 21, skipped=one_in_twenty)], limit=0.04).passed


def test_skipped_steps_are_shared_out_over_all_runs() -> None:
    runs = [run([1.0] * 10), run([1.0] * 10, skipped=[False] * 8 + [True] * 2)]
    assert skipped_steps(runs, limit=0.5).value == pytest.approx(2 / 20)


@pytest.mark.parametrize("runs", [[], [without_steps()], [run([1.0] * 4, skipped=[True] * 4)]])
def test_a_run_that_never_stepped_fails(runs: list[TrialResult]) -> None:
    assert not skipped_steps(runs, limit=0.5).passed
    assert not loss_scale(runs).passed


def test_a_scale_that_stays_where_it_was_found_passes() -> None:
    skipped = [True, True, False, False]
    check = loss_scale([run([1.0] * 4, skipped=skipped, scales=[32768.0, 16384.0, 16384.0, 16384.0])])
    assert check.passed
    assert (check.value, check.limit) == (16384.0, 1.0)


def test_a_scale_that_sinks_with_every_third_step_fails() -> None:
    scales = [2.0 ** (16 - (step + 1) // 3) for step in range(60)]
    check = loss_scale([run([1.0] * 60, skipped=EVERY_THIRD, scales=scales)])
    assert not check.passed
    assert check.value == 2.0**-4


@pytest.mark.parametrize(("lowest", "passes"), [(1.0, True), (0.5, False)])
def test_a_scale_of_one_is_the_lowest_that_lifts_nothing_down(lowest: float, passes: bool) -> None:
    runs = [run(scales=[65536.0, 65536.0]), run(scales=[65536.0, lowest])]
    assert loss_scale(runs).passed is passes


def test_scales_below_one_on_the_way_to_the_first_step_are_calibration() -> None:
    """A scaler that grows again after the first step that it took."""
    check = loss_scale([run([1.0] * 3, skipped=[True, False, False], scales=[0.5, 1.0, 2.0])])
    assert check.passed
    assert check.value == 1.0


def test_an_activation_beyond_fp16_fails_where_fp32_shows_it() -> None:
    check = fp16_range(activation(900.0), activation(70_000.0, "blocks.7.mlp.fc1"))
    assert not check.passed
    assert (check.value, check.limit, check.detail) == (70_000.0, FP16_MAX, "in module blocks.7.mlp.fc1")


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_an_activation_that_overflowed_in_the_probe_fails(value: float) -> None:
    assert not fp16_range(activation(value), activation(60_000.0)).passed
    assert not fp16_range(activation(value), None).passed


def test_the_largest_number_of_fp16_still_fits() -> None:
    check = fp16_range(activation(1.0), activation(FP16_MAX, ""))
    assert check.passed
    assert check.conclusive
    assert (check.value, check.detail) == (65_504.0, "in module the model itself")
    assert not fp16_range(activation(1.0), activation(65_505.0)).passed


@pytest.mark.parametrize(("probe", "reference"), [(None, activation(3.0)), (activation(3.0), None)])
def test_one_run_that_could_be_looked_at_is_enough(
    probe: LargestActivation | None, reference: LargestActivation | None
) -> None:
    check = fp16_range(probe, reference)
    assert check.passed
    assert check.conclusive
    assert check.value == 3.0


def test_modules_that_nobody_could_look_at_tell_nothing() -> None:
    check = fp16_range(None, None)
    assert (check.passed, check.conclusive, check.detail) == (True, False, "no module could be watched")
