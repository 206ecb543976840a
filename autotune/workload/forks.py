"""Distributes work over forked processes, for a process that must not start threads because it is forked later."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

T = TypeVar("T")


def for_each(items: Sequence[T], do: Callable[[T], None], *, processes: int) -> None:
    """Call `do` for every item, in any order, in `processes` processes, which have ended afterwards.

    If this process is killed, they end after their present item. `do` must not need threads or a device. Raises
    OSError: the first one that `do` raised, or because one of the processes was ended from outside.
    """
    if processes <= 1 or sys.platform != "linux":  # forking a process that has loaded PyTorch is safe on Linux only
        for item in items:
            do(item)
        return
    parent, children = os.getpid(), list[int]()
    reader, writer = os.pipe()
    with os.fdopen(reader) as pipe:
        said = "nothing yet"
        try:
            for share in range(processes):
                if (pid := os.fork()) == 0:
                    _work(items[share::processes], do, parent, writer)
                children.append(pid)
            os.close(writer)
            said = pipe.readline()  # empty once all have ended without an error
        finally:
            codes = [_end_of(pid, kill=bool(said)) for pid in children]
    if said:
        raise OSError(*json.loads(said))
    if any(codes):
        raise ChildProcessError(f"one of {processes} processes ended with exit code {next(filter(None, codes))}")


def _work(items: Sequence[T], do: Callable[[T], None], parent: int, writer: int) -> NoReturn:
    code = 1
    try:
        for item in items:
            if os.getppid() != parent:
                break
            do(item)
        else:
            code = 0
    except OSError as error:
        os.write(writer, (json.dumps([error.errno, error.strerror or str(error)]) + "\n").encode())
    except Exception:  # noqa: BLE001 - a bug, and nothing else would show it
        traceback.print_exc()
    finally:
        os._exit(code)


def _end_of(pid: int, *, kill: bool) -> int:
    if kill:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
