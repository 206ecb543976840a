"""Real trial processes and everything that can go wrong in them: the right status, the reason, nothing left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import misbehaving
import psutil
import pytest
from support.processes import MARK, gone, marked

from autotune.config import TrainConfig
from autotune.errors import EnvironmentFailure, WorkloadError
from autotune.execution import LocalBackend, OnEvent
from autotune.records import TrialEvent, TrialRequest, TrialResult, TrialStatus

pytestmark = pytest.mark.slow

WORKLOAD = Path(__file__).parent / "workload"
TEMPLATES = 2
"""Processes: the one that was started, and its fork, which has opened the data set and serves."""
STARTS_S = 0.3
"""Seconds that a template takes at least: it imports PyTorch."""


def spec(module: str = "misbehaving", **sections: Any) -> dict[str, Any]:
    return {
        "model": {"factory": f"{module}:build_model"},
        "data": {"factory": f"{module}:build_data"},
        "training": {"effective_batch_size": "free"},
        "budget": "1m",
        "device": "cpu",
        **sections,
    }


@pytest.fixture(scope="module")
def backend(mark: str) -> Iterator[LocalBackend]:
    backend = LocalBackend(spec(), WORKLOAD)
    backend.facts(60)
    yield backend
    backend.close()
    assert gone(mark)


def ignore(_event: TrialEvent) -> None: ...


def run(
    backend: LocalBackend, size: int, *, workers: int = 0, deadline_s: float = 30.0, on_event: OnEvent = ignore
) -> TrialResult:
    config = TrainConfig(micro_batch_size=size, num_workers=workers, prefetch_factor=2 if workers else None)
    request = TrialRequest(config=config, seed=0, time_limit_s=0.5, max_blocks=4)
    return backend.run(request, deadline_s=deadline_s, on_event=on_event)


def test_a_healthy_trial_reports_everything(backend: LocalBackend) -> None:
    result = run(backend, misbehaving.OK, workers=2)
    assert result.status is TrialStatus.OK
    assert len(result.blocks) >= 2
    assert result.steps is not None
    assert result.warm_up is not None
    assert result.memory is not None
    assert len(result.steps.losses) == result.warm_up.steps + sum(block.steps for block in result.blocks)
    assert all(block.samples == block.steps * misbehaving.OK for block in result.blocks)
    assert all(0 <= block.phases["data_wait"] <= block.seconds for block in result.blocks)
    assert result.training_s < result.wall_s
    assert result.start_up_s is not None
    assert result.memory.resident_bytes > result.memory.resident_growth_bytes > 0


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("size", "status", "reason"),
    [
        (misbehaving.OOM_RAISED, TrialStatus.OOM, "tried to allocate 2.00 GiB"),
        (misbehaving.OOM_KILLED, TrialStatus.OOM, "signal 9"),
        (misbehaving.OOM_ALLOCATION, TrialStatus.OOM, "memory"),
        (misbehaving.SEGFAULT, TrialStatus.CRASHED, "SIGSEGV"),
        (misbehaving.RAISE, TrialStatus.FAILED, "the 7th layer is missing"),
        (misbehaving.EXIT_0, TrialStatus.CRASHED, "exited with code 0"),
        (misbehaving.EXIT_3, TrialStatus.FAILED, "SystemExit: 3"),
        (misbehaving.NAN, TrialStatus.DIVERGED, "the loss is nan at optimizer step 1"),
        (misbehaving.INTERRUPT, TrialStatus.FAILED, "KeyboardInterrupt: as in a notebook"),
        (misbehaving.OTHER_USER, TrialStatus.FAILED, "ValueError: no longer who I was"),
        (misbehaving.UNSPEAKABLE, TrialStatus.FAILED, "Unspeakable: (its message cannot be read"),
    ],
)
def test_each_fault_has_its_status_and_reason(
    backend: LocalBackend, mark: str, size: int, status: TrialStatus, reason: str, workers: int
) -> None:
    result = run(backend, size, workers=workers)
    assert result.status is status
    assert result.failure is not None
    assert reason in result.failure.reason
    assert len(marked(mark)) == TEMPLATES, "only the template may live on"


def test_after_all_of_these_the_same_template_trains_on(backend: LocalBackend, mark: str) -> None:
    templates = marked(mark)
    assert run(backend, misbehaving.OK).status is TrialStatus.OK
    assert marked(mark) == templates


def test_the_traceback_is_in_the_record(backend: LocalBackend) -> None:
    failure = run(backend, misbehaving.RAISE).failure
    assert failure is not None
    assert "misbehaving.py" in failure.traceback


@pytest.mark.parametrize("workers", [0, 2])
def test_a_hang_ends_at_its_deadline_with_all_its_processes(backend: LocalBackend, mark: str, workers: int) -> None:
    """The template lives on only if the trial has ended at its first kill."""
    templates = marked(mark)
    result = run(backend, misbehaving.HANG, workers=workers, deadline_s=2.0)
    assert result.status is TrialStatus.TIMEOUT
    assert result.failure is not None
    assert result.failure.reason == "not done after 2 s; its process was killed"
    assert 2.0 <= result.wall_s < 120, "it would have slept for 600 s"
    assert marked(mark) == templates


@pytest.mark.parametrize("size", [misbehaving.RUBBISH, misbehaving.LOUD])
def test_what_a_trial_prints_is_no_protocol(backend: LocalBackend, size: int) -> None:
    result = run(backend, size)
    assert result.status is TrialStatus.OK
    assert 0 < len(result.output_tail) <= 20_000


def test_processes_that_leave_the_session_are_swept_up(backend: LocalBackend, mark: str) -> None:
    assert run(backend, misbehaving.ORPHAN).status is TrialStatus.OK
    assert len(marked(mark)) == TEMPLATES


def test_loader_processes_work_where_the_temporary_folder_has_a_long_name(
    mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / ("long" * 20)
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    backend = LocalBackend(spec(), WORKLOAD)
    try:
        assert run(backend, misbehaving.OK, workers=2).status is TrialStatus.OK
    finally:
        backend.close()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("which", range(TEMPLATES))
def test_a_template_that_is_killed_is_replaced_and_costs_no_trial(backend: LocalBackend, mark: str, which: int) -> None:
    templates = sorted(marked(mark), key=lambda process: process.pid)
    templates[which].send_signal(signal.SIGKILL)
    psutil.wait_procs([templates[which]], timeout=5)
    began_s = time.monotonic()
    result = run(backend, misbehaving.OK)
    assert result.status is TrialStatus.OK
    assert time.monotonic() - began_s > result.wall_s + STARTS_S, "another template's start is not of the trial's time"
    assert not {process.pid for process in templates} & {process.pid for process in marked(mark)}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_trial_that_somebody_kills_runs_again_and_is_not_blamed(
    backend: LocalBackend, mark: str, workers: int
) -> None:
    """The youngest of its processes: its own, or one of its loader's."""
    victims: list[psutil.Process] = []

    def kill(event: TrialEvent) -> None:
        if event.event == "warm" and not victims:
            victims.append(max(marked(mark), key=lambda process: process.pid))
            victims[0].kill()

    result = run(backend, misbehaving.OK, workers=workers, on_event=kill)
    assert victims
    assert (result.status, result.failure) == (TrialStatus.OK, None)
    assert len(marked(mark)) == TEMPLATES


def test_a_trial_under_which_it_dies_twice_is_to_blame(mark: str) -> None:
    before = marked(mark)
    backend = LocalBackend(spec(), WORKLOAD)
    try:
        result = run(backend, misbehaving.PARRICIDE)
        assert (result.status, backend._restarts) == (TrialStatus.CRASHED, 1)
        assert run(backend, misbehaving.OK).status is TrialStatus.OK
    finally:
        backend.close()
    assert marked(mark) == before


def test_ctrl_c_leaves_nothing(backend: LocalBackend, mark: str) -> None:
    """The last that this backend does."""

    def interrupt(_event: object) -> None:
        raise KeyboardInterrupt

    request = TrialRequest(config=TrainConfig(micro_batch_size=2), seed=0, time_limit_s=30)
    with pytest.raises(KeyboardInterrupt):
        backend.run(request, deadline_s=60, on_event=interrupt)
    backend.close()
    assert marked(mark) == []


def test_a_module_that_starts_threads_gets_fresh_interpreters(mark: str) -> None:
    backend = LocalBackend(spec("threaded"), WORKLOAD)
    try:
        assert run(backend, misbehaving.OK, deadline_s=60).status is TrialStatus.OK
        assert run(backend, misbehaving.HANG, deadline_s=3).status is TrialStatus.TIMEOUT
    finally:
        backend.close()


def test_a_device_that_is_not_there(mark: str) -> None:
    backend = LocalBackend(spec(device="cuda:7"), WORKLOAD)
    try:
        with pytest.raises(EnvironmentFailure, match=r"cuda:7.*device: auto"):
            backend.facts(60)
    finally:
        backend.close()


def test_a_workload_that_cannot_be_built_says_so_before_any_trial() -> None:
    """`tests/workload/test_mistakes.py` has the words for each mistake."""
    backend = LocalBackend(spec(model={"factory": "misbehaving:build_modell"}), WORKLOAD)
    try:
        with pytest.raises(WorkloadError, match="did you mean build_model"):
            backend.facts(60)
    finally:
        backend.close()


@pytest.mark.parametrize(
    ("section", "name", "said"),
    [
        ("data", "misbehaving:build_unmeasurable_data", "RuntimeError: no length"),
        ("model", "misbehaving:interrupted", "KeyboardInterrupt"),
        ("model", "ends_at_its_import:build", "SystemExit: 0"),
    ],
)
def test_whatever_stops_the_workload_from_being_built_is_an_error_of_it_with_its_place(
    section: str, name: str, said: str
) -> None:
    backend = LocalBackend(spec(**{section: {"factory": name}}), WORKLOAD)
    try:
        with pytest.raises(WorkloadError, match=rf"the workload raised {said}.* \(.*\.py:\d+(, in \w+)?\)$"):
            backend.facts(60)
    finally:
        backend.close()


@pytest.mark.parametrize(("module", "templates"), [("misbehaving", TEMPLATES), ("threaded", 1)])
def test_a_killed_controller_takes_everything_with_it(module: str, templates: int) -> None:
    mark = uuid.uuid4().hex
    config = {"micro_batch_size": misbehaving.HANG, "num_workers": 2, "prefetch_factor": 2}
    controller = f"""
from pathlib import Path
from autotune.config import TrainConfig
from autotune.execution import LocalBackend
from autotune.records import TrialRequest
backend = LocalBackend({spec(module)!r}, Path({str(WORKLOAD)!r}))
request = TrialRequest(config=TrainConfig(**{config!r}), seed=0, time_limit_s=30)
backend.run(request, deadline_s=600, on_event=lambda _event: None)
"""
    environment = os.environ | {MARK: mark, "PYTHONPATH": str(WORKLOAD.parents[2])}
    with subprocess.Popen([sys.executable, "-c", controller], env=environment) as process:
        deadline, expected = time.monotonic() + 120, 1 + templates + 1 + 2
        while len(marked(mark)) < expected and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(marked(mark)) == expected, "controller, template, trial and two loader processes"
        process.kill()
    assert gone(mark)
