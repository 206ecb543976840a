"""Which process a trial runs in: decided from what runs cost, and from what has run in it before."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from autotune.config import TrainConfig
from autotune.execution.residence import Residence, RunCost, cost_of, is_asked_again, is_worth_keeping, may_join
from autotune.records import Block, Failure, TrialRequest, TrialResult, TrialStatus, WarmUp

CONFIG = TrainConfig(micro_batch_size=8)
STEP_S = 0.1


def result(
    start_s: float = 0.1, slow_first_s: float = 0.0, *, wait_s: float = 0.0, timed_steps: int = 20, **changes: Any
) -> TrialResult:
    first_step_s = STEP_S + slow_first_s + wait_s
    seconds = timed_steps * STEP_S
    block = Block(steps=timed_steps, samples=8 * timed_steps, seconds=seconds, phases={"data_wait": 0.0})
    values: dict[str, Any] = {
        "config": CONFIG,
        "status": TrialStatus.OK,
        "seed": 0,
        "blocks": (block,) if timed_steps else (),
        "warm_up": WarmUp(
            steps=5,
            seconds=first_step_s + 4 * STEP_S,
            first_step_s=first_step_s,
            first_wait_s=wait_s,
            settled=True,
        ),
        "start_up_s": start_s,
        "wall_s": start_s + first_step_s + 4 * STEP_S + seconds,
        **changes,
    }
    return TrialResult(**values)


def request(**changes: Any) -> TrialRequest:
    values: dict[str, Any] = {"config": CONFIG, "seed": 0, "time_limit_s": 1.0, "in_any_process": True, **changes}
    return TrialRequest(**values)


def costs(*before_s: float, trained_s: float = 3.0) -> list[RunCost]:
    return [RunCost(before_s=seconds, trained_s=trained_s) for seconds in before_s]


def test_what_a_run_costs_before_its_second_step() -> None:
    cost = cost_of(result(1.2, 3.0, wait_s=5.0))
    assert cost is not None
    assert cost.before_s == pytest.approx(1.2 + 3.0), "what it waited for data, any process would wait for"
    assert cost.trained_s == pytest.approx(2.4)


def test_a_run_that_ended_before_its_first_block_tells_it_too() -> None:
    cost = cost_of(result(1.2, 3.0, timed_steps=0))
    assert cost is not None
    assert cost.before_s == pytest.approx(4.2)


def test_steps_that_wait_for_data_are_no_slower_steps() -> None:
    waiting = Block(steps=10, samples=80, seconds=10.0, phases={"data_wait": 9.0})
    cost = cost_of(result(1.2, 3.0).model_copy(update={"blocks": (waiting,)}))
    assert cost is not None
    assert cost.before_s == pytest.approx(4.2)


@pytest.mark.parametrize(
    "untold", [{"warm_up": None}, {"start_up_s": None}, {"config": CONFIG.replace(compile="default")}]
)
def test_what_was_not_measured_or_was_compiled_tells_nothing(untold: dict[str, Any]) -> None:
    assert cost_of(result(1.2, 3.0).model_copy(update=untold)) is None


@pytest.mark.parametrize(
    ("new", "again", "kept"),
    [
        ([], [], False),
        ([4.2], [], True),  # an H200: worth a try
        ([4.2], [1.3], True),
        ([4.2], [4.0], False),  # tried, and nothing saved
        ([0.2], [], False),  # a fork on a CPU
        ([3.1], [0.1], True),  # a CPU whose libraries take three seconds to get ready
        ([4.2, 4.0, 4.4], [9.0, 1.2, 1.3], True),  # one that was slow is no rule
    ],
)
def test_a_process_is_kept_where_that_saves_much_of_a_run(new: list[float], again: list[float], kept: bool) -> None:
    assert is_worth_keeping(costs(*new), costs(*again)) is kept


def test_what_is_much_depends_on_how_long_runs_train() -> None:
    assert is_worth_keeping(costs(0.6, trained_s=1.0), [])
    assert not is_worth_keeping(costs(0.6, trained_s=20.0), [])


def test_the_first_two_runs_are_the_evidence() -> None:
    dear, plain = Residence(), Residence()
    dear.note(request(), result(1.2, 3.0))
    plain.note(request(), result(0.02, 0.05))
    assert dear.is_worth_keeping
    assert not plain.is_worth_keeping
    dear.note(request(), result(1.1, 3.0, runs_before=1))
    assert not dear.is_worth_keeping


def test_who_asks_for_a_process_each_time_has_no_use_for_one_that_stays() -> None:
    residence = Residence()
    residence.note(request(in_any_process=False), result(1.2, 3.0))
    assert not residence.is_worth_keeping
    residence.note(request(), result(1.2, 3.0))
    assert residence.is_worth_keeping


def test_recent_runs_decide() -> None:
    """Runs that become shorter, as those that confirm are, are worth a process that long ones were not."""
    residence = Residence()
    for _ in range(10):
        residence.note(request(), result(0.5, 0.5, timed_steps=400))
    assert not residence.is_worth_keeping
    for _ in range(10):
        residence.note(request(), result(0.5, 0.5, timed_steps=10))
    assert residence.is_worth_keeping


FED = CONFIG.replace(num_workers=2, prefetch_factor=2)


@pytest.mark.parametrize(
    ("asked", "earlier", "joins"),
    [
        (request(), [CONFIG, FED], True),
        (request(in_any_process=False), [FED], False),
        (request(config=CONFIG.replace(world_size=2)), [FED], False),
        (request(watch_training=True), [FED, FED], True),
        (request(watch_training=True), [FED, CONFIG], False),  # has read the data set itself
    ],
)
def test_who_may_join(asked: TrialRequest, earlier: list[TrainConfig], joins: bool) -> None:
    assert may_join(asked, earlier) is joins


@pytest.mark.parametrize(
    ("status", "runs_before", "again"),
    [
        (TrialStatus.OOM, 3, True),
        (TrialStatus.CRASHED, 1, True),
        (TrialStatus.FAILED, 1, True),
        (TrialStatus.DIVERGED, 1, True),
        (TrialStatus.OOM, 0, False),
        (TrialStatus.TIMEOUT, 3, False),  # its time is over
        (TrialStatus.OK, 3, False),
        (TrialStatus.PRUNED, 3, False),
    ],
)
def test_a_failure_where_others_may_be_to_blame_is_asked_again(
    status: TrialStatus, runs_before: int, again: bool
) -> None:
    assert is_asked_again(result(status=status, runs_before=runs_before)) is again


@pytest.mark.parametrize("runs_before", [0, 3])
def test_one_that_somebody_killed_is_asked_again_unless_the_kernel_did(
    runs_before: int,
) -> None:
    killed = result(
        status=TrialStatus.OOM, runs_before=runs_before, failure=Failure(reason="killed", signal=signal.SIGKILL)
    )
    assert is_asked_again(killed)
    assert is_asked_again(killed, kernel_killed=True) is (runs_before > 0)


def test_one_that_died_by_another_signal_is_believed() -> None:
    crashed = result(status=TrialStatus.CRASHED, failure=Failure(reason="a fault", signal=signal.SIGSEGV))
    assert not is_asked_again(crashed)
