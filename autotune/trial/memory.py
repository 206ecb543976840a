"""Peak memory of a trial: torch's own counters on an accelerator, the kernel's resident-set marks on the host."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

import psutil
import torch

from autotune.records import Memory

_STATUS = Path("/proc/self/status")
_CLEAR_PEAK = "5"


class MemoryWatch:
    """Watches memory: create it before the model is built, read it once after the last step."""

    def __init__(self, device: torch.device, resident_before: int | None = None) -> None:
        """`resident_before`: resident bytes before the first run of a process that runs several; None: the bytes
        now."""
        self._device = device
        # The peak mark is inherited from the template; 5 resets it (proc(5), /proc/pid/clear_refs).
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text(_CLEAR_PEAK)
        now = psutil.Process().memory_info().rss
        self._resident_before = now if resident_before is None else resident_before

    def read(self) -> Memory:
        peak = max(_peak_resident(), self._resident_before)
        allocated, reserved = self._device_peaks()
        return Memory(
            allocated_bytes=allocated,
            reserved_bytes=reserved,
            resident_bytes=peak,
            resident_growth_bytes=peak - self._resident_before,
        )

    def _device_peaks(self) -> tuple[int | None, int | None]:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device), torch.cuda.max_memory_reserved(self._device)
        if self._device.type == "xpu":
            return torch.xpu.max_memory_allocated(self._device), torch.xpu.max_memory_reserved(self._device)
        if self._device.type == "mps":
            return torch.mps.current_allocated_memory(), torch.mps.driver_allocated_memory()
        return None, None


def _peak_resident() -> int:
    if _STATUS.exists():
        marks = (line.split() for line in _STATUS.read_text().splitlines())
        return next(int(mark[1]) * 1024 for mark in marks if mark and mark[0] == "VmHWM:")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
