"""Each stability gate fires on what it is for, and stays silent on what is none of its business."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from support.facts import cpu_facts, cuda_facts

from autotune.config import TrainConfig
from autotune.records import Failure, Memory, OptimizerSteps, TrialResult, TrialStatus
from autotune.search.gates import (
    finite_loss,
    gate_all,
    loss_at_equal_samples,
    memory_headroom,
    skipped_steps,
    soak,
)
from autotune.spec.model import StabilitySpec

BASELINE = TrainConfig()
GIB = 1 << 30


def run(
    losses: Sequence[float] = (2.0, 1.0),
    *,
    samples: int = 32,
    skipped: Sequence[bool] | None = None,
    config: TrainConfig = BASELINE,
    memory: Memory | None = None,
    failure: Failure | None = None,
) -> TrialResult:
    steps = OptimizerSteps(
        losses=list(losses), samples=[samples] * len(losses), skipped=list(skipped or [False] * len(losses))
    )
    status = TrialStatus.FAILED if failure else TrialStatus.OK
    return TrialResult(config=config, status=status, seed=0, steps=steps, wall_s=1.0, memory=memory, failure=failure)


def without_steps() -> TrialResult:
    return TrialResult(config=BASELINE, status=TrialStatus.CRASHED, seed=0, wall_s=1.0)


def on_cpu(resident_bytes: int) -> Memory:
    return Memory(resident_bytes=resident_bytes, resident_growth_bytes=1)


def on_device(reserved_bytes: int) -> Memory:
    return Memory(
        allocated_bytes=reserved_bytes // 2,
        reserved_bytes=reserved_bytes,
        resident_bytes=15 * GIB,
        resident_growth_bytes=1,
    )


def test_finite_losses_pass() -> None:
    check = finite_loss([run(), run([3.0] * 5)])
    assert check.passed
    assert (check.value, check.limit, check.detail) == (0, 0, "7 optimizer steps")


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_one_loss_that_is_not_finite_fails_and_all_are_counted(loss: float) -> None:
    assert not finite_loss([run(), run([2.0, loss])]).passed
    assert finite_loss([run([loss, 1.0]), run([loss])]).value == 2


def test_a_step_skipped_while_the_scaler_finds_its_scale_is_no_fault() -> None:
    check = skipped_steps([run([1.0] * 20, skipped=[True] * 3 + [False] * 17)], limit=0.05)
    assert check.passed
    assert (check.value, check.detail) == (0.0, "17 steps")


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


def test_a_cpus_headroom_is_the_hosts() -> None:
    check = memory_headroom([run(memory=on_cpu(4 * GIB)), run(memory=on_cpu(2 * GIB))], cpu_facts(), 0.10)
    assert check.value == pytest.approx(0.75)
    assert check.passed
    assert not memory_headroom([run(memory=on_cpu(15 * GIB))], cpu_facts(), 0.10).passed


def test_an_accelerators_headroom_is_what_its_allocator_left() -> None:
    runs = [run(memory=on_device(40 * GIB)), run(memory=on_device(60 * GIB))]
    check = memory_headroom(runs, cuda_facts(), 0.25)
    assert check.value == pytest.approx(0.25)
    assert check.passed
    assert not memory_headroom(runs, cuda_facts(), 0.26).passed


@pytest.mark.parametrize("runs", [[], [run(memory=None)]])
def test_memory_that_nobody_saw_is_not_free(runs: list[TrialResult]) -> None:
    assert not memory_headroom(runs, cpu_facts(), 0.10).passed


def test_equal_losses_pass_and_a_worse_one_fails() -> None:
    ours, theirs = {1: run([2.0, 1.1])}, {1: run([2.0, 1.0])}
    assert loss_at_equal_samples(theirs, theirs, 0.05).passed
    check = loss_at_equal_samples(ours, theirs, 0.05)
    assert check.value == pytest.approx(0.1)
    assert not check.passed
    assert loss_at_equal_samples(ours, theirs, 0.11).passed


def test_a_better_loss_passes_by_any_margin() -> None:
    check = loss_at_equal_samples({1: run([2.0, 0.2])}, {1: run([2.0, 1.0])}, 0.05)
    assert check.passed
    assert check.value == pytest.approx(-0.8)


def test_only_the_second_half_of_the_common_samples_counts() -> None:
    """Steps of 64 against 32: at 128 common samples, the second half is one step of ours and two of theirs."""
    ours = {1: run([9.0, 1.0, 50.0], samples=64)}
    theirs = {1: run([3.0, 3.0, 1.2, 0.8], samples=32)}
    check = loss_at_equal_samples(ours, theirs, 0.05)
    assert check.value == pytest.approx(0.0)
    assert check.passed


def test_a_step_across_the_middle_counts_with_its_share() -> None:
    """Of 120 common samples the second half begins in the middle of the second step."""
    ours = {1: run([5.0, 2.0, 1.0], samples=40)}
    theirs = {1: run([1.0] * 3, samples=40)}
    assert loss_at_equal_samples(ours, theirs, 1.0).value == pytest.approx((20 * 2.0 + 40 * 1.0) / 60 - 1)


def test_the_noise_between_seeds_widens_the_limit() -> None:
    theirs = {number: run([2.0, loss]) for number, loss in enumerate([0.8, 1.0, 1.2])}
    ours = {number: run([2.0, 1.3]) for number in theirs}
    check = loss_at_equal_samples(ours, theirs, 0.05)
    assert check.limit == pytest.approx(2 * 0.2)
    assert check.passed
    assert loss_at_equal_samples(ours, theirs, 0.6).limit == 0.6


def test_only_rounds_that_both_have_run_are_compared() -> None:
    ours = {1: run([2.0, 1.0]), 2: run([2.0, 100.0])}
    theirs = {1: run([2.0, 1.0]), 3: run([2.0, 0.001])}
    check = loss_at_equal_samples(ours, theirs, 0.05)
    assert check.passed
    assert check.detail == "1 against 1, 1 rounds"


@pytest.mark.parametrize(("ours", "theirs"), [({}, {}), ({1: run()}, {2: run()}), ({1: without_steps()}, {1: run()})])
def test_no_common_round_is_no_pass(ours: dict[int, TrialResult], theirs: dict[int, TrialResult]) -> None:
    check = loss_at_equal_samples(ours, theirs, 0.05)
    assert not check.passed
    assert check.detail == "no common round"


def test_a_loss_that_is_not_a_number_never_passes() -> None:
    assert not loss_at_equal_samples({1: run([2.0, math.nan])}, {1: run()}, 0.05).passed


def test_a_soak_needs_all_its_steps() -> None:
    assert soak(run([1.0] * 10), 10).passed
    check = soak(run([1.0] * 9), 10)
    assert not check.passed
    assert (check.value, check.limit) == (9, 10)


def test_a_soak_that_broke_fails_with_its_reason_however_far_it_came() -> None:
    check = soak(run([1.0] * 20, failure=Failure(reason="the loss is nan at optimizer step 21")), 10)
    assert not check.passed
    assert check.detail == "the loss is nan at optimizer step 21"


def test_a_soak_that_never_ran_says_why() -> None:
    check = soak(None, 10)
    assert not check.passed
    assert (check.value, check.detail) == (0, "the budget ended before the soak")


def test_a_spec_may_ask_for_no_soak() -> None:
    assert soak(None, 0).passed


def names(runs: dict[int, TrialResult], baseline_runs: dict[int, TrialResult]) -> list[str]:
    return [check.name for check in gate_all(runs, baseline_runs, StabilitySpec(), cpu_facts())]


def test_the_gates_that_apply_are_the_gates_that_run() -> None:
    baseline = {1: run(memory=on_cpu(GIB))}
    assert names(baseline, baseline) == ["finite_loss", "memory_headroom"]
    bf16 = {1: run(memory=on_cpu(GIB), config=TrainConfig(amp_dtype="bf16"))}
    assert names(bf16, baseline) == ["finite_loss", "memory_headroom", "loss_at_equal_samples"]
    fp16 = {1: run(memory=on_cpu(GIB), config=TrainConfig(amp_dtype="fp16"))}
    assert names(fp16, baseline) == ["finite_loss", "memory_headroom", "skipped_steps", "loss_at_equal_samples"]


def test_the_specs_limits_reach_their_gates() -> None:
    spec = StabilitySpec(loss_tolerance=0.2, memory_headroom=0.3, max_skipped_steps=0.4)
    runs = {1: run(memory=on_cpu(GIB), config=TrainConfig(amp_dtype="fp16"))}
    limits = {check.name: check.limit for check in gate_all(runs, {1: run()}, spec, cpu_facts())}
    assert limits == {
        "finite_loss": 0,
        "memory_headroom": 0.3,
        "skipped_steps": 0.4,
        "loss_at_equal_samples": 0.2,
    }
