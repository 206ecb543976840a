"""The gates of the soak."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from support.runs import block, run, without_steps

from autotune.records import Failure
from autotune.search.gates import soak, soak_throughput
from autotune.stats import Posterior, Rounds


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


def confirmed_by(*rates: float) -> Posterior:
    return Rounds([[math.log(rate)] for rate in rates]).rate(0)


@pytest.mark.parametrize(
    ("rates", "passes"),
    [
        pytest.param((318.0, 320.0, 321.0), True, id="the same"),
        pytest.param((280.0, 330.0, 360.0, 300.0), True, id="within what runs differ by"),
        pytest.param((400.0, 401.0, 399.0, 400.0), False, id="beyond: slower"),
        pytest.param((280.0, 281.0, 280.0, 279.0), False, id="beyond: faster"),
        pytest.param((350.0,), True, id="one run alone says less"),
        pytest.param((3200.0, 2900.0, 3300.0), False, id="ten times slower"),
    ],
)
def test_a_soak_contradicts_where_chance_would_not_let_one_more_run_be(rates: Sequence[float], passes: bool) -> None:
    """The soak's blocks: 32 samples in 0.1 s."""
    check = soak_throughput(run(blocks=[block()] * 5), 320.0, confirmed_by(*rates), error=0.001)
    assert check.passed is passes
    assert check.value == pytest.approx(320.0 / math.exp(confirmed_by(*rates).quantiles(0.5)[0]))
    assert (check.limit < 1) is (check.value < 1)


def test_a_soak_that_is_known_badly_itself_contradicts_less() -> None:
    steady = confirmed_by(400.0, 401.0, 399.0, 400.0)
    assert not soak_throughput(run(blocks=[block()] * 5), 320.0, steady, error=0.01).passed
    assert soak_throughput(run(blocks=[block()] * 5), 320.0, steady, error=0.10).passed


@pytest.mark.parametrize("noise", [0.005, 0.05, 0.15])
def test_one_sound_soak_in_a_hundred_is_said_to_contradict_at_the_most(noise: float) -> None:
    """After four rounds; its own blocks let it be known to 2 %."""
    generator = np.random.default_rng(0)

    def contradicts() -> bool:
        logs = generator.normal(0, noise, (4, 4))
        soaked = math.exp(generator.normal(0, math.hypot(noise, 0.02)))
        fastest = int(logs[:, 1:].mean(axis=0).argmax()) + 1
        check = soak_throughput(run(blocks=[block()] * 5), soaked, Rounds(logs).rate(fastest), error=0.02)
        return not check.passed

    assert sum(contradicts() for _ in range(200)) <= 4


def test_blocks_beside_other_work_contradict_nothing() -> None:
    busy = block().model_copy(update={"disturbances": ("contended",)})
    soaked = run(blocks=[block(), block(), busy, busy])
    check = soak_throughput(soaked, 320.0, confirmed_by(3200.0, 3200.0), error=0.01)
    assert (check.passed, check.conclusive) == (True, False)
    assert check.detail == "2 undisturbed blocks are too few to judge"


def test_the_first_figure_from_a_gpu_is_contradicted_by_its_own_soak() -> None:
    """ResNet-50 on an H200, 2026-11-27: 2,310 and 2,312 samples/s in two confirming runs, which timed what the loader
    had queued, and 1,268 in the soak. The baseline and the other finalists ran in the same rounds."""
    confirmed = Rounds(np.log([[269.17, 2309.96, 2487.65, 2403.5], [263.57, 2312.16, 1819.87, 2483.02]])).rate(1)
    check = soak_throughput(run(blocks=[block()] * 98), 1268.5, confirmed, error=0.08)
    assert not check.passed
    assert check.value == pytest.approx(0.549, abs=0.001)
