"""Real processes that run one trial after another: nothing leaks, what cannot be put back ends them."""

from __future__ import annotations

import os
import random
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lasting
import psutil
import pytest
from support.processes import MARK, gone, marked

from autotune.config import TrainConfig
from autotune.execution import LocalBackend
from autotune.records import TrialRequest, TrialResult, TrialStatus

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")]

WORKLOAD = Path(__file__).parent / "workload"
TEMPLATES = 2
STEPS = 40


def spec() -> dict[str, Any]:
    return {
        "model": {"factory": "lasting:build_model"},
        "data": {"factory": "lasting:build_data"},
        "training": {"effective_batch_size": "free", "optimizer": {"name": "sgd", "lr": 0.1}},
        "budget": "1m",
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def backend(mark: str) -> Iterator[LocalBackend]:
    backend = LocalBackend(spec(), WORKLOAD)
    yield backend
    backend.close()
    assert gone(mark)


def run(
    backend: LocalBackend, size: int = lasting.OK, *, own: bool = False, deadline_s: float = 30.0, **request: Any
) -> TrialResult:
    """Some optimizer steps."""
    config = TrainConfig(micro_batch_size=size, **request)
    asked = TrialRequest(config=config, seed=3, time_limit_s=0.5, max_steps=STEPS, in_any_process=not own)
    return backend.run(asked, deadline_s=deadline_s, on_event=lambda _event: None)


def losses(result: TrialResult) -> list[float]:
    assert result.steps is not None, result.failure
    return result.steps.losses


def first_step_s(result: TrialResult) -> float:
    assert result.warm_up is not None
    return result.warm_up.first_step_s


def test_a_process_with_a_slow_first_step_runs_the_next_trials_too(backend: LocalBackend, mark: str) -> None:
    run(backend)
    first, *others = run(backend, own=True), run(backend), run(backend, num_workers=2, prefetch_factor=2), run(backend)
    assert [result.runs_before for result in (first, *others)] == [0, 1, 2, 3]
    assert {result.process for result in others} == {first.process}
    assert first_step_s(first) > lasting.FIRST_STEP_S > max(map(first_step_s, others))
    assert len(marked(mark)) == TEMPLATES + 1, "the loader's processes have ended"


def test_who_needs_a_process_of_its_own_gets_one(backend: LocalBackend, mark: str) -> None:
    one, other = run(backend, own=True), run(backend, own=True)
    assert one.process != other.process
    assert one.runs_before == other.runs_before == 0
    assert len(marked(mark)) == TEMPLATES + 1, "the first has ended"


def test_the_same_configuration_first_and_last_gives_the_same(backend: LocalBackend) -> None:
    """Losses hang on weights, order, augmentation and dropout: on all random states."""
    first = run(backend, own=True)
    between = [
        run(backend, lasting.TURNS_SWITCHES),
        run(backend, lasting.LARGE, amp_dtype="bf16", num_threads=2),
        run(backend, num_workers=1, prefetch_factor=2, num_threads=1),
    ]
    last = run(backend)
    assert {result.process for result in (*between, last)} == {first.process}
    assert losses(last) == losses(first)
    assert first.memory is not None and last.memory is not None and between[1].memory is not None
    assert between[1].memory.resident_growth_bytes > lasting.KEPT_BYTES
    assert abs(last.memory.resident_growth_bytes - first.memory.resident_growth_bytes) < lasting.KEPT_BYTES / 4


@pytest.mark.parametrize(
    "size",
    [
        lasting.LEAVES_A_THREAD,
        lasting.LEAVES_A_PROCESS,
        lasting.LEAVES_AN_ORPHAN,
        lasting.KEEPS_MEMORY,
        lasting.POISONS,
    ],
)
def test_what_cannot_be_put_back_ends_the_process(backend: LocalBackend, mark: str, size: int) -> None:
    before = run(backend, own=True)
    spoilt = run(backend, size)
    after = run(backend)
    is_failure = size == lasting.POISONS
    assert spoilt.status is (TrialStatus.FAILED if is_failure else TrialStatus.OK)
    assert (spoilt.process == before.process) is not is_failure, "a failure is looked at in a process of its own"
    assert after.status is TrialStatus.OK
    assert after.process != spoilt.process
    assert after.runs_before == 0
    assert len(marked(mark)) == TEMPLATES + 1, "what was left behind is gone"


@pytest.mark.parametrize("size", [lasting.FAILS_WHEN_USED, lasting.EXITS_WHEN_USED])
def test_a_failure_counts_only_in_a_process_of_its_own(backend: LocalBackend, size: int) -> None:
    before = run(backend, own=True)
    result = run(backend, size)
    assert result.status is TrialStatus.OK
    assert result.process != before.process


def test_an_exception_in_a_new_process_need_not_end_it(backend: LocalBackend) -> None:
    run(backend, own=True)
    failed = run(backend, lasting.RAISES, own=True)
    assert failed.status is TrialStatus.FAILED
    assert run(backend).status is TrialStatus.OK


def test_a_hang_ends_the_process(backend: LocalBackend, mark: str) -> None:
    before = run(backend, own=True)
    hung = run(backend, lasting.HANGS, deadline_s=1.0)
    assert hung.status is TrialStatus.TIMEOUT
    assert hung.process == before.process
    assert len(marked(mark)) == TEMPLATES
    assert run(backend).runs_before == 0


def test_a_resident_that_is_killed_while_it_waits_is_replaced(backend: LocalBackend, mark: str) -> None:
    run(backend, own=True)
    resident = max(marked(mark), key=lambda process: process.create_time())
    resident.kill()
    psutil.wait_procs([resident], timeout=5)
    result = run(backend)
    assert result.status is TrialStatus.OK
    assert result.runs_before == 0


def test_kills_at_random_moments_lose_nothing_and_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the resident, the templates and loader processes, whichever is there."""
    mark, moments = uuid.uuid4().hex, random.Random(5)
    monkeypatch.setenv(MARK, mark)
    backend = LocalBackend(spec(), WORKLOAD)
    run(backend, own=True)
    try:
        for _ in range(3):  # a template is replaced three times
            victims = marked(mark)
            killer = threading.Timer(moments.uniform(0, 0.8), moments.choice(victims).kill)
            killer.start()
            statuses = {run(backend, num_workers=1, prefetch_factor=2).status for _ in range(2)}
            killer.join()
            assert statuses <= {TrialStatus.OK, TrialStatus.CRASHED, TrialStatus.OOM}
            assert run(backend).status in (TrialStatus.OK, TrialStatus.CRASHED)
            assert run(backend).status is TrialStatus.OK
    finally:
        backend.close()
    assert gone(mark)
