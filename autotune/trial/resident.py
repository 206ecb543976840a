"""A process that runs one trial after another, as long as each finds it as a new process would be.

After a run, all that it held is freed and PyTorch's settings are put back. What cannot be put back ends the process:
the next run then has a new one. What a user's module keeps in its globals stays; so does a data set, opened once.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from autotune.records import TrialRequest
from autotune.trial import isolation
from autotune.trial.channel import Requests
from autotune.trial.device import synchronise
from autotune.trial.failure import describe
from autotune.trial.run import Report, run_trial
from autotune.trial.switches import Switches
from autotune.workload import Prepared

_MAY_GROW = 0.1
"""Share of the resident set after the first run: what libraries keep for later, such as kernels of another format."""
_DEVICE_MAY_KEEP_BYTES = 64 << 20
_THREADS_END_WITHIN_S = 1.0
_RELEASES = ("empty_cache", "reset_peak_memory_stats", "reset_accumulated_memory_stats")


class Resident:
    """Reports each run's events, and, where another one may follow, `cleared`."""

    def __init__(self, prepared: Prepared, device: torch.device, report: Report, scratch: Path) -> None:
        isolation.adopt_orphans()  # of a loader's processes, above all: they would be left behind unseen
        self._prepared = prepared
        self._device = device
        self._report = report
        self._scratch = scratch
        self._switches = Switches(device)
        self._threads = set(threading.enumerate())
        self._bytes_before = resident_bytes()
        self._bytes_cleared: int | None = None

    def serve(self, request: TrialRequest, requests: Requests) -> None:
        """Run `request`, and those that follow, until no more come or something spoils this process."""
        asked: TrialRequest | None = request
        while asked is not None:
            poisoned = run_trial(
                self._prepared, asked, self._device, self._report, self._scratch, resident_before=self._bytes_before
            )
            if requests.next() is None:
                return
            spoiled = poisoned or self.clear()
            self._report("cleared", {"spoiled": spoiled})
            following = None if spoiled else requests.next()
            asked = TrialRequest.model_validate(following) if following else None

    def clear(self) -> str | None:
        """Make this process as it was before its first run. Why it is not; None: it is."""
        try:
            free(self._device)
            self._switches.restore()
            return self._left_behind() or self._kept_memory()
        except BaseException as error:  # noqa: BLE001 - what a run has left broken may raise anything
            return describe(error).reason

    def _left_behind(self) -> str | None:
        children = psutil.Process().children()
        if children:
            return f"a process was left behind: {children[0].pid}"
        ends_s = time.monotonic() + _THREADS_END_WITHIN_S
        while threads := [thread for thread in threading.enumerate() if self._is_new(thread)]:
            if time.monotonic() > ends_s:
                return f"a thread was left behind: {threads[0].name}"
            time.sleep(0.005)
        return None

    def _is_new(self, thread: threading.Thread) -> bool:
        """Threads of libraries, which show here once they have called Python, are no one's to end."""
        return thread not in self._threads and not isinstance(thread, threading._DummyThread)

    def _kept_memory(self) -> str | None:
        used = _device_bytes(self._device)
        if used > _DEVICE_MAY_KEEP_BYTES:
            return f"{used >> 20} MiB of device memory were not freed"
        now = resident_bytes()
        self._bytes_cleared = self._bytes_cleared or now
        grown = now - self._bytes_cleared
        return f"its memory grew by {grown >> 20} MiB" if grown > _MAY_GROW * self._bytes_cleared else None


def free(device: torch.device) -> None:
    """Give back all that a run has held, on the device and on the host."""
    compiled: Any = sys.modules.get("torch._inductor.async_compile")
    if compiled is not None:
        compiled.shutdown_compile_workers()
    dynamo: Any = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        dynamo.reset()
    torch.clear_autocast_cache()
    gc.collect()
    synchronise(device)  # raises where the device's context is spoilt
    _release(device)
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)


def _release(device: torch.device) -> None:
    if device.type == "cpu":
        return
    if device.type == "cuda":
        for name in ("_cuda_clearCublasWorkspaces", "_host_emptyCache"):
            getattr(torch._C, name, lambda: None)()
    module: Any = getattr(torch, device.type)
    for name in _RELEASES:
        getattr(module, name, lambda: None)()


def _device_bytes(device: torch.device) -> int:
    if device.type in ("cuda", "xpu"):
        return int(getattr(torch, device.type).memory_allocated(device))
    return int(torch.mps.current_allocated_memory()) if device.type == "mps" else 0


def resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)
