"""Ensures that processes never outlive their owner: sessions, death signals, and killing what a trial leaves behind.

Linux has all three. Elsewhere the session alone remains, and trials start in fresh interpreters.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SWEEP_LIMIT_S = 5.0

ON_LINUX = sys.platform == "linux"


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def die_with_parent(parent: int | None = None) -> None:
    """Make the kernel kill this process when its parent dies. A fork does not inherit this, so every child calls it
    again.

    `parent`: process id of the parent. If the parent died before this call, the process ends at once.
    """
    if not ON_LINUX:
        return
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, so that `sweep` finds it."""
    if ON_LINUX:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill_session(leader: int) -> None:
    """Kill `leader`, a child of this process, and the process group that it leads, if it already leads one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(leader, signal.SIGKILL)


def keep_to(cores: list[int]) -> None:
    """Run only on these CPUs, later forks included; an empty list means no restriction."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def lead_session() -> None:
    """Start a new session: no terminal, no signals meant for other processes, one group to kill."""
    if os.getsid(0) != os.getpid():
        os.setsid()


def sweep(keep: set[int]) -> None:
    """Kill and reap all children except `keep`, and the orphans that these leave."""
    deadline = time.monotonic() + _SWEEP_LIMIT_S
    while time.monotonic() < deadline:
        strays = [child for child in psutil.Process().children() if child.pid not in keep]
        if not strays:
            return
        for stray in strays:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, ChildProcessError):
                stray.kill()
                os.waitpid(stray.pid, 0)
