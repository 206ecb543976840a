"""The host memory that a trial may use: the machine's, or less under the limit of a container or a shell."""

from __future__ import annotations

import resource
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


def usable_bytes() -> int:
    """Most bytes that this process may use."""
    return min(filter(None, (psutil.virtual_memory().total, _data_limit(), _cgroup_limit())))


def available_bytes(process: psutil.Process) -> int:
    """Bytes that `process`, which is this process, could still get."""
    left = [psutil.virtual_memory().available]
    data, group = _data_limit(), _cgroup_limit()
    if data is not None:
        left.append(data - getattr(process.memory_info(), "data", 0))
    if group is not None:
        left.append(group - _cgroup_used())
    return max(min(left), 0)


def _data_limit() -> int | None:
    """`ulimit -d`, in bytes."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_DATA)
    return None if soft == resource.RLIM_INFINITY else soft


def _cgroup_limit() -> int | None:
    path = _CGROUP / "memory.max"
    text = path.read_text().strip() if path.exists() else ""
    return int(text) if text.isdecimal() else None


def _cgroup_used() -> int:
    """Used bytes, without the page cache that the kernel would free first."""
    statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    return int((_CGROUP / "memory.current").read_text()) - int(statistics.get("inactive_file", 0))
