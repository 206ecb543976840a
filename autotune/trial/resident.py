"""A process that runs several trials, as long as each of them finds it in the state of a new process.

After a run, everything that it held is freed and PyTorch's settings are restored. If that fails, the process ends and
the next run gets a new one. Globals of a user's module stay, and so does a data set that was opened once.
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
"""Allowed growth, as a share of the resident set after the first run: libraries keep things such as kernels for another
format."""
_DEVICE_MAY_KEEP_BYTES = 64 << 20
_THREADS_END_WITHIN_S = 1.0
_RELEASES = ("empty_cache", "reset_peak_memory_stats", "reset_accumulated_memory_stats")


class Resident:
    """Runs requests and reports their events; `cleared` means that another request may follow."""

    def __init__(self, prepared: Prepared, device: torch.device, report: Report, scratch: Path) -> None:
        isolation.adopt_orphans()  # above all of loader processes: they would be left behind unnoticed
        self._prepared = prepared
        self._device = device
        self._report = report
        self._scratch = scratch
        self._switches = Switches(device)
        self._threads = set(threading.enumerate())
        self._bytes_before = resident_bytes()
        self._bytes_cleared: int | None = None

    def serve(self, request: TrialRequest, requests: Requests) -> None:
        """Run `request` and the requests that follow, until no more come or a run spoils this process."""
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
        """Restore the state before the first run. Returns why that failed; None if it succeeded."""
        try:
            free(self._device)
            self._switches.restore()
            return self._left_behind() or self._kept_memory()
        except BaseException as error:  # noqa: BLE001 - what a run has broken may raise anything
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
        """Whether the run started it. Threads of libraries, listed here once they have called Python, do not count:
        nobody can end them."""
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
    """Free everything that a run has held, on the device and on the host."""
    compiled: Any = sys.modules.get("torch._inductor.async_compile")
    if compiled is not None:
        compiled.shutdown_compile_workers()
    dynamo: Any = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        dynamo.reset()
    torch.clear_autocast_cache()
    gc.collect()
    synchronise(device)  # raises if the device's context is broken
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
