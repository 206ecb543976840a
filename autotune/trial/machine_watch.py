"""What the machine does in addition to training while a block is timed."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from autotune.records import MachineState
from autotune.trial.host_memory import available_bytes
from autotune.trial.loader_memory import LoaderMemory
from autotune.trial.nvml import GpuReading, GpuSensors

_SHM = Path("/dev/shm")


class MachineWatch:
    """Observes the machine during each block: call `start` right before a block, `read` right after it."""

    def __init__(
        self, device: torch.device, sensors: GpuSensors | None = None, root: psutil.Process | None = None
    ) -> None:
        """`sensors`: default, the sensors of `device`. `root`: the process that started the trial; all its descendants
        belong to the trial. Default: this process."""
        self._device = device
        self._gpu = sensors if sensors is not None or device.type != "cuda" else GpuSensors(_uuid(device))
        self._cpus = _Cpus()
        self._process = psutil.Process()
        self._root = root or self._process
        self._workers: list[psutil.Process] = []
        self._loader_memory = LoaderMemory(())
        self.start()

    def find_workers(self) -> None:
        """From now on, count the trial's present processes, such as those of a DataLoader, as part of the trial.

        Restarts the counters, so that earlier work of these processes does not count for the block. Takes milliseconds.
        """
        family = [self._root, *self._root.children(recursive=True)]
        self._workers = [process for process in family if process != self._process]
        self._loader_memory = LoaderMemory(self._workers if self._root == self._process else ())
        self._loader_memory.read()  # the first exact reading of memory comes before the first block, not after it
        self.start()

    def start(self) -> None:
        self._energy_j = None if self._gpu is None else self._gpu.energy_j()
        self._before = self._cpu_seconds()

    def read(self) -> MachineState:
        """The state since the last `start`. In short blocks the loads are coarse, because the kernel counts in ticks of
        10 ms."""
        after = self._cpu_seconds()
        gpu = GpuReading() if self._gpu is None else self._gpu.read()
        own_load, outside_load = _loads(self._before, after, self._cpus.count)
        loader_s = max(after.workers_s - self._before.workers_s, 0.0)
        allocated, retries = _allocator(self._device)
        return MachineState(
            outside_load=outside_load,
            own_load=own_load,
            loader_load=loader_s / (after.at_s - self._before.at_s) if self._root == self._process else None,
            cores=self._cpus.count,
            available_memory_bytes=available_bytes(self._process),
            shm_free_bytes=shutil.disk_usage(_SHM).free if _SHM.exists() else None,
            resident_bytes=self._process.memory_info().rss,
            loader_bytes=self._loader_memory.read(),
            device_allocated_bytes=allocated,
            allocator_retries=retries,
            sm_clock_mhz=gpu.sm_clock_mhz,
            power_w=gpu.power_w,
            temperature_c=gpu.temperature_c,
            throttle_reasons=gpu.throttle_reasons,
            other_device_processes=gpu.other_processes,
            energy_j=None if gpu.energy_j is None or self._energy_j is None else gpu.energy_j - self._energy_j,
        )

    def _cpu_seconds(self) -> _CpuSeconds:
        """CPU seconds of this process and its workers, and of their children that have ended and were waited for.

        The ended children keep the sum from falling when a worker ends. This process is counted to the microsecond,
        others in ticks.
        """
        reaped, workers_s = os.times(), self._workers_s()
        own_s = time.process_time() + reaped.children_user + reaped.children_system + workers_s
        return _CpuSeconds(at_s=time.perf_counter(), idle_s=self._cpus.idle_s(), own_s=own_s, workers_s=workers_s)

    def _workers_s(self) -> float:
        seconds, alive = 0.0, []
        for worker in self._workers:
            with contextlib.suppress(psutil.Error):
                seconds += sum(worker.cpu_times()[:4])  # user and system, its own and its ended children's
                alive.append(worker)
        self._workers = alive
        return seconds


@dataclass(frozen=True)
class _CpuSeconds:
    """Counters at one moment; each has its own zero."""

    at_s: float
    idle_s: float | None
    own_s: float
    workers_s: float


def _loads(before: _CpuSeconds, after: _CpuSeconds, cpus: int) -> tuple[float, float | None]:
    """Cores kept busy by the trial, and by everything else.

    Busy time is `cpus` × wall seconds minus idle time: user, system, interrupts and steal. This is more precise than
    their sum: a kernel that halts idle CPUs measures idle time with a clock, but samples busy time.
    """
    wall_s = after.at_s - before.at_s
    own_load = max(after.own_s - before.own_s, 0.0) / wall_s
    if before.idle_s is None or after.idle_s is None:
        return own_load, None
    busy_load = cpus - (after.idle_s - before.idle_s) / wall_s
    return own_load, max(busy_load - own_load, 0.0)


class _Cpus:
    """The CPUs that this process may run on: all CPUs of the machine, unless a cpuset or the user excludes some."""

    def __init__(self) -> None:
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
        try:
            listed = len(psutil.cpu_times(percpu=True))
        except (OSError, psutil.Error):  # a sandbox that hides /proc/stat
            listed = 0
        self.count = len(allowed) if allowed else listed
        self._subset = sorted(allowed) if allowed and len(allowed) < listed else None
        # psutil lists the CPUs that are online without their numbers: if numbers are missing, they cannot be matched.
        self._known = listed >= self.count and (self._subset is None or self._subset[-1] < listed)

    def idle_s(self) -> float | None:
        """Idle seconds of all these CPUs together, waiting for a disk included; None if the system does not count
        them."""
        if not self._known:
            return None
        if self._subset is None:
            counters = [psutil.cpu_times()]
        else:
            every = psutil.cpu_times(percpu=True)
            counters = [every[number] for number in self._subset]
        # Sandboxes such as gVisor show counters that stay at zero.
        return math.fsum(cpu.idle + getattr(cpu, "iowait", 0.0) for cpu in counters) or None


def _uuid(device: torch.device) -> str | None:
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return None if uuid is None else str(uuid)


def _allocator(device: torch.device) -> tuple[int | None, int | None]:
    """Bytes that torch's allocator has allocated, and how often it had to empty its cache and retry."""
    if device.type == "cuda":
        statistics = torch.cuda.memory_stats(device)
    elif device.type == "xpu":
        statistics = torch.xpu.memory_stats(device)
    else:
        return None, None
    return statistics.get("allocated_bytes.all.current"), statistics.get("num_alloc_retries")
