"""Two slots on this machine: trials at the same time, each in its own place, and all of them ended together."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import placed
import pytest
from support.processes import gone, marked

from autotune.config import TrainConfig
from autotune.errors import EnvironmentFailure
from autotune.execution import start_all, start_alone
from autotune.execution.local import LocalBackend
from autotune.execution.place import Place
from autotune.execution.slots import SlotsBackend
from autotune.records import DeviceFacts, TrialRequest, TrialResult, TrialStatus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPU cores"),
]
WORKLOAD = Path(__file__).parent / "workload"


def spec(meeting: Path) -> dict[str, Any]:
    meeting.mkdir(exist_ok=True)
    return {
        "model": {"factory": "placed:build_model", "args": {"meeting": str(meeting)}},
        "data": {"factory": "placed:build_data"},
        "budget": "1m",
        "device": "cpu",
        "execution": {"backend": "local", "devices": [0, 1]},
    }


@pytest.fixture(scope="module")
def meeting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("meeting")


@pytest.fixture(scope="module")
def backend(mark: str, meeting: Path) -> Iterator[SlotsBackend]:
    backend = start_all(spec(meeting), WORKLOAD)
    assert isinstance(backend, SlotsBackend)
    yield backend
    backend.close()


def run(backend: SlotsBackend | LocalBackend, size: int) -> TrialResult:
    request = TrialRequest(config=TrainConfig(micro_batch_size=size), seed=0, time_limit_s=0.3, max_blocks=3)
    return backend.run(request, deadline_s=40, on_event=lambda _event: None)


def at_once(backend: SlotsBackend, size: int) -> list[TrialResult]:
    results: list[TrialResult] = []
    threads = [threading.Thread(target=lambda: results.append(run(backend, size))) for _ in range(backend.slots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def whereabouts(result: TrialResult) -> tuple[set[int], str]:
    assert result.failure is not None
    found = re.search(r"cores (\S+) devices (\S+)", result.failure.reason)
    assert found, result.failure
    return set(map(int, found[1].split(","))), found[2]


def test_two_trials_run_at_the_same_time(backend: SlotsBackend) -> None:
    assert [result.status for result in at_once(backend, placed.MEET)] == [TrialStatus.OK, TrialStatus.OK]


def test_each_has_cores_and_devices_of_its_own(backend: SlotsBackend) -> None:
    facts = backend.facts(60)
    (one, first), (other, second) = map(whereabouts, at_once(backend, placed.TELL))
    assert {first, second} == {"0", "1"}
    assert not one & other
    assert len(one) == len(other) == facts.host.usable_cores == len(os.sched_getaffinity(0)) // 2


def test_a_trial_alone_is_always_in_the_first_place(backend: SlotsBackend, meeting: Path) -> None:
    places = [whereabouts(run(backend, placed.TELL)) for _ in range(3)]
    alone = start_alone(spec(meeting), WORKLOAD)
    try:
        assert isinstance(alone, LocalBackend)
        assert {(tuple(cores), devices) for cores, devices in [*places, whereabouts(run(alone, placed.TELL))]} == {
            (tuple(places[0][0]), "0")
        }
    finally:
        alone.close()


def test_devices_of_two_kinds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: SlotsBackend
) -> None:
    kinds = iter(["A100", "H100"])
    found = backend.facts(60)

    def facts(_self: LocalBackend, _deadline_s: float) -> Any:
        device = DeviceFacts(kind="cuda", name=next(kinds), total_memory_bytes=80 << 30, amp_dtypes=())
        return found.model_copy(update={"device": device})

    monkeypatch.setattr(LocalBackend, "facts", facts)
    monkeypatch.setattr("autotune.execution.local.Template", lambda *_: Mock())  # none has anything to run
    mixed = SlotsBackend(spec(tmp_path / "meeting"), WORKLOAD, [Place(devices=(2,)), Place(devices=(5,))])
    try:
        with pytest.raises(EnvironmentFailure, match=r"device \d is a [AH]100.*one kind only"):
            mixed.facts(10)
    finally:
        mixed.close()


def test_closing_ends_what_runs_in_other_threads(mark: str, backend: SlotsBackend) -> None:
    """The last that this backend does."""
    templates = len(marked(mark))
    threads = [threading.Thread(target=run, args=(backend, placed.SLEEP)) for _ in range(backend.slots)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while len(marked(mark)) < templates + 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(marked(mark)) == templates + 2, "two trials"
    backend.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert gone(mark)
