"""A process that runs several trials, without the process: what it is told, and what it puts back."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from autotune.config import TrainConfig
from autotune.records import TrialRequest
from autotune.trial import isolation, resident
from autotune.trial.channel import Requests
from autotune.trial.memory import MemoryWatch
from autotune.trial.resident import Resident, resident_bytes
from autotune.trial.switches import Switches
from autotune.workload import Prepared

CPU = torch.device("cpu")


def request(size: int) -> TrialRequest:
    return TrialRequest(config=TrainConfig(micro_batch_size=size), seed=0, time_limit_s=1.0)


class Told:
    """What a controller would say, and what it hears."""

    def __init__(self, *messages: Any) -> None:
        self._messages = iter(messages)
        self.events: list[tuple[str, Any]] = []

    def next(self) -> Any:
        return next(self._messages, None)

    def report(self, event: str, payload: dict[str, Any] | None = None) -> None:
        self.events.append((event, payload))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Micro-batch sizes of what was run; 99 spoils the device."""
    sizes: list[int] = []

    def run_trial(_prepared: Any, asked: TrialRequest, *_others: Any, resident_before: int) -> str | None:
        assert resident_before > 0
        sizes.append(asked.config.micro_batch_size)
        return "CUDA error" if asked.config.micro_batch_size == 99 else None

    monkeypatch.setattr(resident, "run_trial", run_trial)
    monkeypatch.setattr(isolation, "adopt_orphans", lambda: None)
    monkeypatch.setattr(resident.psutil.Process, "children", lambda _self: [])
    yield sizes


def resident_of(told: Told) -> Resident:
    return Resident(cast(Prepared, None), CPU, told.report, Path())


def serve(*messages: Any, first: int = 1) -> Told:
    told = Told(*messages)
    resident_of(told).serve(request(first), cast(Requests, told))
    return told


def test_one_that_is_let_go_after_its_first_run_clears_nothing(ran: list[int]) -> None:
    assert serve().events == []
    assert ran == [1]


def test_it_clears_up_after_each_run_and_runs_the_next(ran: list[int]) -> None:
    two, three = (request(size).model_dump(mode="json") for size in (2, 3))
    told = serve("clear", two, "clear", three, "clear")
    assert ran == [1, 2, 3]
    assert told.events == [("cleared", {"spoiled": None})] * 3


def test_nothing_runs_after_an_error_that_stays_with_the_device(ran: list[int]) -> None:
    told = serve("clear", request(2).model_dump(mode="json"), first=99)
    assert ran == [99]
    assert told.events == [("cleared", {"spoiled": "CUDA error"})]


def test_what_cannot_be_cleared_says_why(ran: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_device: torch.device) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(resident, "free", broken)
    spoiled = resident_of(Told()).clear()
    assert spoiled is not None
    assert spoiled.startswith("RuntimeError: CUDA error: unspecified launch failure (")


def test_a_thread_that_goes_on_spoils_it(ran: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "_THREADS_END_WITHIN_S", 0.05)
    process, over = resident_of(Told()), threading.Event()
    assert process.clear() is None
    thread = threading.Thread(target=over.wait, name="prefetcher")
    thread.start()
    assert process.clear() == "a thread was left behind: prefetcher"
    over.set()
    thread.join()
    assert process.clear() is None


@pytest.mark.parametrize(("grown", "is_spoilt"), [(0.05, False), (0.3, True)])
def test_memory_that_grows_spoils_it(
    ran: list[int], monkeypatch: pytest.MonkeyPatch, grown: float, is_spoilt: bool
) -> None:
    """By what it was after the first run, before which libraries have not got ready."""
    sizes = iter([1 << 28, 1 << 29, int((1 + grown) * (1 << 29))])
    monkeypatch.setattr(resident, "resident_bytes", lambda: next(sizes))
    process = resident_of(Told())
    assert process.clear() is None
    assert (process.clear() is not None) is is_spoilt


def test_device_memory_that_does_not_come_back_spoils_it(ran: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "_device_bytes", lambda _device: 1 << 30)
    assert resident_of(Told()).clear() == "1024 MiB of device memory were not freed"


def test_the_peak_of_a_run_is_its_own() -> None:
    before = resident_bytes()
    large = MemoryWatch(CPU, before)
    block = torch.ones(64 << 20)
    assert large.read().resident_growth_bytes >= block.nbytes
    del block
    resident.free(CPU)
    assert MemoryWatch(CPU, before).read().resident_growth_bytes < 128 << 20


SETTINGS = {
    "threads": (torch.get_num_threads, lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
    "gradients": (torch.is_grad_enabled, lambda: torch.set_grad_enabled(False)),
    "anomaly": (torch.is_anomaly_enabled, lambda: torch.set_anomaly_enabled(True)),
    "dtype": (torch.get_default_dtype, lambda: torch.set_default_dtype(torch.float64)),
    "deterministic": (torch.are_deterministic_algorithms_enabled, lambda: torch.use_deterministic_algorithms(True)),
    "autocast": (lambda: torch.is_autocast_enabled("cpu"), lambda: torch.set_autocast_enabled("cpu", True)),
    "autocast's dtype": (
        lambda: torch.get_autocast_dtype("cpu"),
        lambda: torch.set_autocast_dtype("cpu", torch.float16),
    ),
    "autocast's cache": (torch.is_autocast_cache_enabled, lambda: torch.set_autocast_cache_enabled(False)),
    "cuDNN's search": (
        lambda: torch.backends.cudnn.benchmark,
        lambda: setattr(torch.backends.cudnn, "benchmark", True),
    ),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_are_put_back(setting: str) -> None:
    read, turn = SETTINGS[setting]
    before = read()
    kept = Switches(CPU)
    turn()
    assert read() != before
    kept.restore()
    assert read() == before


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="PyTorch before 2.9")
def test_what_fp32_may_round_to_is_put_back() -> None:
    conv: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    matmul: Any = torch.backends.cuda.matmul
    before, kept = (conv.fp32_precision, matmul.fp32_precision), Switches(CPU)
    conv.fp32_precision = matmul.fp32_precision = "ieee"
    assert (conv.fp32_precision, matmul.fp32_precision) != before
    kept.restore()
    assert (conv.fp32_precision, matmul.fp32_precision) == before


def test_requests_end_with_the_pipe() -> None:
    reader, writer = os.pipe()
    os.write(writer, b'"clear"\n{"torn": ')
    os.close(writer)
    requests = Requests(reader)
    assert requests.next() == "clear"
    assert requests.next() is None, "a line that was cut off is none"
