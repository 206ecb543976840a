"""From what a trial's process reported, and how it ended, to its result."""

from __future__ import annotations

import math
import signal
from typing import Any

import pytest

from autotune.config import TrainConfig
from autotune.execution.outcome import Outcome
from autotune.records import Block, Failure, Memory, OptimizerSteps, TrialEvent, TrialRequest, TrialStatus, WarmUp

REQUEST = TrialRequest(config=TrainConfig(micro_batch_size=8), seed=5, time_limit_s=1.0)
MEMORY = Memory(resident_bytes=2 << 30, resident_growth_bytes=1 << 30)
WARM_UP = WarmUp(steps=2, seconds=0.5, first_step_s=0.4, settled=True)


def steps(*losses: float) -> OptimizerSteps:
    return OptimizerSteps(losses=list(losses), samples=[8] * len(losses), skipped=[False] * len(losses))


def event(name: Any, at_s: float = 100.0, **payload: Any) -> TrialEvent:
    """As it comes over the wire."""
    sent = TrialEvent(event=name, at_s=at_s, payload=payload)
    return TrialEvent.model_validate_json(sent.model_dump_json())


def warm(*losses: float) -> TrialEvent:
    return event("warm", warm_up=WARM_UP.model_dump(), steps=steps(*losses).model_dump(mode="json"))


def block(*losses: float) -> TrialEvent:
    timed = Block(steps=len(losses), samples=8 * len(losses), seconds=0.1, phases={})
    return event("block", block=timed.model_dump(), steps=steps(*losses).model_dump(mode="json"))


def end(status: str = "ok", reason: str | None = None, **more: Any) -> TrialEvent:
    failure = Failure(reason=reason, traceback="Traceback …").model_dump() if reason else None
    whole = {"status": status, "failure": failure, "memory": MEMORY.model_dump(), "unreadable_samples": [], **more}
    return event("result", **whole)


def outcome(*events: TrialEvent, **how: Any) -> Outcome:
    return Outcome(asked_at_s=99.0, ended_at_s=103.5, events=list(events), **how)


def test_a_whole_trial() -> None:
    whole = outcome(event("started", 99.25), warm(3.0, 2.0), block(1.5), block(1.25), end(), exit_code=0)
    result = whole.result(REQUEST)
    assert result.status is TrialStatus.OK
    assert result.failure is None
    assert result.config == REQUEST.config
    assert result.seed == 5
    assert result.warm_up == WARM_UP
    assert [timed.samples for timed in result.blocks] == [8, 8]
    assert result.steps == steps(3.0, 2.0, 1.5, 1.25)
    assert result.memory == MEMORY
    assert result.start_up_s == 0.25
    assert result.wall_s == 4.5


@pytest.mark.parametrize("status", ["oom", "diverged", "failed"])
def test_a_trial_that_said_how_it_failed_is_believed(status: str) -> None:
    result = outcome(warm(1.0), end(status, "what happened"), exit_code=0).result(REQUEST)
    assert result.status == status
    assert result.failure == Failure(reason="what happened", traceback="Traceback …")
    assert result.memory == MEMORY


@pytest.mark.parametrize("how", [{"exit_code": -9}, {"exit_code": 1}, {"exit_code": -15, "deadline_s": 3.0}, {}])
def test_a_result_counts_however_the_process_ended_after_it(how: dict[str, Any]) -> None:
    """Loader processes that hang while the interpreter shuts down cost no trial."""
    assert outcome(warm(1.0), block(1.0), end(), **how).result(REQUEST).status is TrialStatus.OK


@pytest.mark.parametrize(
    ("how", "status", "reason", "number"),
    [
        ({"exit_code": -signal.SIGKILL}, TrialStatus.OOM, "killed by signal 9, as the kernel's out-of-memory", 9),
        ({"exit_code": -signal.SIGSEGV}, TrialStatus.CRASHED, "killed by signal 11 (SIGSEGV)", 11),
        ({"exit_code": -signal.SIGABRT}, TrialStatus.CRASHED, "killed by signal 6 (SIGABRT)", 6),
        ({"exit_code": -signal.SIGBUS}, TrialStatus.CRASHED, "killed by signal 7 (SIGBUS)", 7),
        ({"exit_code": -signal.SIGRTMIN - 6}, TrialStatus.CRASHED, "killed by signal 40 (real-time)", 40),
        ({"exit_code": 0}, TrialStatus.CRASHED, "exited with code 0 before it returned a result", None),
        ({"exit_code": 3}, TrialStatus.CRASHED, "exited with code 3 before it returned a result", None),
        ({"exit_code": None}, TrialStatus.CRASHED, "the process that starts trials died too", None),
        (
            {"exit_code": -9, "deadline_s": 12.4},
            TrialStatus.TIMEOUT,
            "not done after 12 s; its process was killed",
            None,
        ),
    ],
)
def test_a_sudden_end(how: dict[str, Any], status: TrialStatus, reason: str, number: int | None) -> None:
    result = outcome(event("started"), warm(2.0), block(1.0), **how).result(REQUEST)
    assert result.status is status
    assert result.failure is not None
    assert result.failure.reason.startswith(reason)
    assert result.failure.signal == number
    assert result.failure.exit_code == (how["exit_code"] if "code" in reason else None)


def test_what_came_before_a_sudden_end_is_kept() -> None:
    result = outcome(event("started", 100.0), warm(2.0), block(1.0, 0.5), exit_code=-11, output_tail="boom").result(
        REQUEST
    )
    assert result.warm_up == WARM_UP
    assert len(result.blocks) == 1
    assert result.steps == steps(2.0, 1.0, 0.5)
    assert result.memory is None
    assert result.start_up_s == 1.0
    assert result.output_tail == "boom"
    assert result.failure is not None
    assert result.failure.traceback == "boom", "where faulthandler writes"


def test_an_end_before_the_first_step() -> None:
    result = outcome(exit_code=-11).result(REQUEST)
    assert result.status is TrialStatus.CRASHED
    assert (result.warm_up, result.blocks, result.steps, result.start_up_s) == (None, (), None, None)
    assert result.training_s == 0


def test_files_that_could_not_be_read_are_named() -> None:
    result = outcome(end(unreadable_samples=["a.jpg", "b.jpg"]), exit_code=0).result(REQUEST)
    assert result.unreadable_samples == ("a.jpg", "b.jpg")


def test_losses_that_are_no_numbers_survive_the_wire() -> None:
    result = outcome(warm(1.0, math.inf, math.nan), exit_code=0).result(REQUEST)
    assert result.steps is not None
    assert result.steps.losses[:2] == [1.0, math.inf]
    assert math.isnan(result.steps.losses[2])


def test_events_are_told_apart_by_their_kind_in_order() -> None:
    whole = outcome(warm(1.0), block(1.0), block(2.0))
    assert [len(whole.of_kind(kind)) for kind in ("warm", "block", "result")] == [1, 2, 0]
    assert [e.payload["steps"]["losses"] for e in whole.of_kind("block")] == [[1.0], [2.0]]
