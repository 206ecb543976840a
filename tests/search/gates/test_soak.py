"""The soak's gate."""

from __future__ import annotations

from support.runs import run, without_steps

from autotune.records import Failure
from autotune.search.gates import soak


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
