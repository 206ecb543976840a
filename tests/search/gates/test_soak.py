"""The gates of the soak."""

from __future__ import annotations

import pytest
from support.runs import block, run, without_steps

from autotune.records import Failure
from autotune.search.gates import soak, soak_throughput


def test_a_soak_needs_all_its_steps() -> None:
    check = soak(run([1.0] * 10), 10)
    assert check.passed
    assert (check.value, check.limit, check.detail) == (10, 10, "")
    check = soak(run([1.0] * 9), 10)
    assert not check.passed
    assert (check.value, check.limit) == (9, 10)


def test_a_soak_may_train_on() -> None:
    check = soak(run([1.0] * 25), 10)
    assert check.passed
    assert check.value == 25


def test_a_soak_that_broke_fails_with_its_reason_however_far_it_came() -> None:
    check = soak(run([1.0] * 20, failure=Failure(reason="the loss is nan at optimizer step 21")), 10)
    assert not check.passed
    assert check.detail == "the loss is nan at optimizer step 21"


def test_a_soak_that_died_before_its_first_step_fails() -> None:
    check = soak(without_steps(), 10)
    assert not check.passed
    assert check.value == 0


def test_a_soak_that_never_ran_says_why() -> None:
    check = soak(None, 10)
    assert not check.passed
    assert (check.value, check.detail) == (0, "the budget ended before the soak")


def test_a_spec_may_ask_for_no_soak() -> None:
    check = soak(None, 0)
    assert check.passed
    assert check.detail == ""


@pytest.mark.parametrize(
    ("confirmed", "runs", "passes"),
    [
        pytest.param(320.0, 4, True, id="the same"),
        pytest.param(200.0, 4, True, id="more than was confirmed"),
        pytest.param(426.9, 4, True, id="within chance"),
        pytest.param(427.1, 4, False, id="beyond"),
        pytest.param(427.1, 1, True, id="one run alone says less"),
        pytest.param(3200.0, 1, False, id="ten times slower"),
    ],
)
def test_a_soak_that_is_slower_than_chance_lets_one_run_be_contradicts(
    confirmed: float, runs: int, passes: bool
) -> None:
    """The soak's blocks: 32 samples in 0.1 s. The spread between runs: 10 %."""
    check = soak_throughput(run(blocks=[block()] * 5), confirmed, runs=runs, spread=0.1)
    assert check.passed is passes
    assert check.value == pytest.approx(320.0 / confirmed)


def test_blocks_beside_other_work_contradict_nothing() -> None:
    busy = block().model_copy(update={"disturbances": ("contended",)})
    check = soak_throughput(run(blocks=[block(), block(), busy, busy]), 3200.0, runs=4, spread=0.1)
    assert (check.passed, check.conclusive) == (True, False)
    assert check.detail == "2 undisturbed blocks are too few to tell"


def test_the_first_figure_from_a_gpu_is_contradicted_by_its_own_soak() -> None:
    """ResNet-50 on an H200, 2026-11-27: 2,311 samples/s in two confirming runs, which timed what the loader had queued,
    and 1,268 in the soak. The spread is that of the study's eight confirming runs."""
    h200 = [block().model_copy(update={"samples": 1268, "seconds": 1.0})] * 3
    check = soak_throughput(run(blocks=h200), 2311.0, runs=2, spread=0.132)
    assert not check.passed
    assert check.value == pytest.approx(0.549, abs=0.001)
    assert check.limit == pytest.approx(0.659, abs=0.001)
