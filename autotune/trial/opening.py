"""Opens a data set once for all trials, in a process that then replaces the template.

Data sets may take seconds to open, and each trial would open them again. Opening one in the template itself could spoil
all trials: a process that has started threads, touched a device or holds a file open cannot be forked afterwards. So a
fork of the template opens the data set. If that fork can itself be forked, it serves trials from then on, and each
trial finds the data set as it was when it was opened. If not, the fork ends, and the template serves trials as before.
"""

from __future__ import annotations

import json
import os
import random
import stat
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from autotune.trial import isolation

if TYPE_CHECKING:
    from collections.abc import Callable

    from autotune.workload import Prepared

_WORTH_A_WORD_S = 1.0
"""Seconds of opening from which on it is worth a remark that each trial opens the data set again."""
_PROC = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the fork tells the template."""

    refusal: str | None
    """Why the fork cannot serve trials; None: it does."""
    seconds: float


def let_a_fork_open(prepared: Prepared, let_go: Callable[[], None]) -> str | None:
    """Fork a process that opens the data set of `prepared`, and that replaces this process if it can.

    Returns None in the process that serves trials from now on: the fork, or this process if the data set is not kept or
    cannot be opened (the first process that needs it then shows what is wrong). Otherwise returns the reason why each
    trial has to open the data set again, if that takes long. If the fork serves, this process calls `let_go`, waits for
    the fork's end, and exits with the same code.
    """
    if not prepared.keeps_data:
        return None
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    template = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        isolation.die_with_parent(template)
        isolation.adopt_orphans()
        outcome = _open(prepared)
        with os.fdopen(writer, "w") as pipe:
            pipe.write(json.dumps([outcome.refusal, outcome.seconds]) + "\n")
        if outcome.refusal is not None:
            os._exit(0)
        return None
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.readline()  # not until end of file: a child of the data set may hold the other end open
    if said:
        outcome = _Outcome(*json.loads(said))
        if outcome.refusal is None:
            let_go()
            os._exit(_end_of(pid))
        os.waitpid(pid, 0)
        return outcome.refusal if outcome.refusal and outcome.seconds >= _WORTH_A_WORD_S else None
    return f"opening it ended the process with exit code {_end_of(pid)}"


def _end_of(pid: int) -> int:
    """Wait for the child and return its exit code; if a signal killed it, the code that a shell would report."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def _open(prepared: Prepared) -> _Outcome:
    before = _Footprint.now()
    began_s = time.monotonic()
    try:
        _seed(prepared.spec.training.seed)
        prepared.dataset()
    except BaseException:  # noqa: BLE001 - the user's code; the process that opens it again reports what is wrong
        return _Outcome("", 0.0)
    return _Outcome(_Footprint.now().refusal(before), time.monotonic() - began_s)


def _seed(seed: int) -> None:
    """Seed the generators, so that random draws of a factory are the same in each study."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@dataclass(frozen=True, slots=True)
class _Footprint:
    """What a fork of a process would lack, or would share with it."""

    threads: int
    children: frozenset[int]
    files: frozenset[tuple[int, str]]
    """Descriptors and targets of open files."""
    is_cuda_initialised: bool

    @classmethod
    def now(cls) -> _Footprint:
        import torch

        return cls(
            threads=count_threads(),
            children=frozenset(child.pid for child in psutil.Process().children()),
            files=frozenset(_open_files()),
            is_cuda_initialised=torch.cuda.is_initialized(),  # type: ignore[no-untyped-call]
        )

    def refusal(self, before: _Footprint) -> str | None:
        """Why a process whose footprint was `before` and is now `self` must not be forked; None: it may be."""
        if self.threads > before.threads:
            return "opening it starts threads"
        if self.children - before.children:
            return "opening it starts a process"
        if self.is_cuda_initialised:
            return "opening it initialises CUDA"
        shared = sorted(target for number, target in self.files - before.files if _is_shared_by_forks(number))
        return f"it keeps {shared[0]} open, and all trials would share its file position" if shared else None


def count_threads() -> int:
    """How many threads this process has, those of libraries included."""
    tasks = _PROC / "task"
    return len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()


def _open_files() -> list[tuple[int, str]]:
    found = []
    for link in (_PROC / "fd").iterdir():
        try:
            found.append((int(link.name), str(link.readlink())))
        except OSError:  # the descriptor that lists them
            continue
    return found


def _is_shared_by_forks(descriptor: int) -> bool:
    """Whether forks would share its state: a file with a position, a pipe or a connection. A file that is mapped into
    memory for reading is no problem."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    if not stat.S_ISREG(status.st_mode):
        return stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)
    modes = [line.split()[1] for line in (_PROC / "maps").read_text().splitlines() if _maps(line, status.st_ino)]
    return not modes or any(mode.endswith("s") and "w" in mode for mode in modes)


def _maps(line: str, inode: int) -> bool:
    return line.split()[4] == str(inode)
