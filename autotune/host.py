"""This machine's processor: its name, how much of it this process may use, and what the kernel has killed. Imports only
light modules."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_VMSTAT = Path("/proc/vmstat")
_ROOT = Path("/")
_NEXT_TO_NOTHING = 0.1
"""Cores: a fraction of a core up to this size in a quota is too small for another process."""


def cpu_name() -> str:
    """The processor's name from the kernel, or else from the platform."""
    return cpuinfo("model name") or platform.processor() or platform.machine()


def cpuinfo(key: str) -> str | None:
    """The first value of `key` in the kernel's description of the processors; None if there is none."""
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), None)


def oom_kills() -> int | None:
    """Number of processes that the kernel's out-of-memory killer has ended since the machine started, including those
    that exceeded the limit of a control group; None if unknown."""
    lines = _VMSTAT.read_text().splitlines() if _VMSTAT.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def allowed_cpus() -> list[int]:
    """Numbers of the CPUs that this process may run on: its affinity mask, which a container's quota leaves alone."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """CPU cores that this process and its children can keep busy: the allowed ones, or fewer under a CPU quota.

    A fraction of a core counts as one core. The quota limits the sum over all processes, so one more process uses the
    fraction. Rounded down, a quota of 1.5 cores would leave a third of it unused.
    """
    allowed, quota = len(allowed_cpus()), cpu_quota()
    return allowed if quota is None else min(allowed, max(math.ceil(quota - _NEXT_TO_NOTHING), 1))


def cpu_quota(root: Path | None = None) -> float | None:
    """Cores that the control groups of this process allow (the lowest limit); None if none sets a limit.

    Reads cgroup v2 (`cpu.max`) and v1 (`cpu.cfs_quota_us`), of the group itself and of its ancestors as far as they are
    mounted: a container often sees its own group as the root. `root`: the folder that /proc and the mounts lie in.
    """
    try:
        granted = [cores for folder in _groups(root or _ROOT) if (cores := _granted(folder)) is not None]
    except (OSError, ValueError, IndexError):  # no Linux, or a sandbox that shows something else there
        return None
    return min(granted, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the control groups that may limit CPU time: those of this process, each followed by its ancestors."""
    paths = dict(_own_paths(root))
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, options = after.split()[0], after.split()[-1].split(",")
        path = paths.get("v2" if kind == "cgroup2" else "v1" if kind == "cgroup" and "cpu" in options else "")
        if path is not None:
            mounted, mount = before.split()[3:5]
            yield from _upwards(root / mount.replace("\\040", " ").lstrip("/"), _below(path, mounted))


def _own_paths(root: Path) -> Iterator[tuple[str, str]]:
    """The path of this process's group in the hierarchies that limit CPU time."""
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            yield "v1", path
        elif number == "0" and not controllers:
            yield "v2", path


def _below(path: str, mounted: str) -> list[str]:
    """Names from the mounted group down to `path`; empty if the mount shows another part of the hierarchy."""
    names, top = ([name for name in each.split("/") if name] for each in (path, mounted))
    return names[len(top) :] if names[: len(top)] == top else []


def _upwards(mount: Path, names: list[str]) -> Iterator[Path]:
    for depth in range(len(names), -1, -1):
        yield mount.joinpath(*names[:depth])


def _granted(folder: Path) -> float | None:
    """Cores that this group alone would allow."""
    if (v2 := folder / "cpu.max").exists():
        quota, period = v2.read_text().split()[:2]
    elif (v1 := folder / "cpu.cfs_quota_us").exists():
        quota, period = v1.read_text().strip(), (folder / "cpu.cfs_period_us").read_text().strip()
    else:
        return None
    return int(quota) / int(period) if quota.isdecimal() and int(quota) > 0 else None
