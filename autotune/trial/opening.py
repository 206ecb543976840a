"""A data set that is opened once for all trials, by a process that then takes the template's place.

People's data sets take seconds to open, and each trial would open them again. In the template itself that could spoil
all trials: what starts threads, touches a device or holds a file open cannot be forked afterwards. So a fork of the
template opens it. If that fork can be forked in turn, it serves trials from then on, and each of them finds the data
set as it was when it was opened; if not, it ends, and the template serves as if nothing had been tried.
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
"""Seconds of opening; nobody minds that less is done again in each trial."""
_PROC = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the fork tells the template."""

    refusal: str | None
    """Why it cannot serve; None: it does."""
    seconds: float


def let_a_fork_open(prepared: Prepared, let_go: Callable[[], None]) -> str | None:
    """Fork a process that opens the data set of `prepared`, and serves in the place of this one if it can.

    Comes back with None in a process that shall serve trials, which may be the fork or, where the data set is not kept
    or cannot be opened, this one: what is wrong with it then shows in the first process that needs it. Else with the
    reason for which each trial has to open it again, if that takes long. Where the fork serves, this process calls
    `let_go`, waits for its end, and ends as it did.
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
        said = pipe.readline()  # not to its end: what the data set has forked may hold the other end open
    if said:
        outcome = _Outcome(*json.loads(said))
        if outcome.refusal is None:
            let_go()
            os._exit(_end_of(pid))
        os.waitpid(pid, 0)
        return outcome.refusal if outcome.refusal and outcome.seconds >= _WORTH_A_WORD_S else None
    return f"opening it ended the process with exit code {_end_of(pid)}"


def _end_of(pid: int) -> int:
    """The exit code with which that child ends; of one that a signal kills, as a shell has it."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def _open(prepared: Prepared) -> _Outcome:
    before = _Footprint.now()
    began_s = time.monotonic()
    try:
        _seed(prepared.spec.training.seed)
        prepared.dataset()
    except BaseException:  # noqa: BLE001 - the user's code; whoever opens it again can say what is wrong
        return _Outcome("", 0.0)
    return _Outcome(_Footprint.now().refusal(before), time.monotonic() - began_s)


def _seed(seed: int) -> None:
    """What a factory draws at random is the same in each study."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@dataclass(frozen=True, slots=True)
class _Footprint:
    """What of a process a fork of it lacks, or would share with it."""

    threads: int
    children: frozenset[int]
    files: frozenset[tuple[int, str]]
    """Descriptor and target of what is open."""
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
        """Why a process that has come from `before` to this must not be forked; None: it may."""
        if self.threads > before.threads:
            return "opening it starts threads"
        if self.children - before.children:
            return "opening it starts a process"
        if self.is_cuda_initialised:
            return "opening it initialises CUDA"
        shared = sorted(target for number, target in self.files - before.files if _is_shared_by_forks(number))
        return f"it keeps {shared[0]} open, and all trials would share one position in it" if shared else None


def count_threads() -> int:
    """Threads of this process, those of libraries included."""
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
    """Whether it is a file with a position, a pipe or a connection. A file that is mapped into memory for reading is
    read there."""
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
