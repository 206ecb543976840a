"""Which processes a test has started: all that carry its mark in their environment, however far they have strayed."""

from __future__ import annotations

import contextlib
import os
import time

import psutil

MARK = "AUTOTUNE_TEST_MARK"


def marked(mark: str) -> list[psutil.Process]:
    """Living processes with `mark`, this one left out."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if (
                process.pid != os.getpid()
                and process.status() != psutil.STATUS_ZOMBIE
                and process.environ().get(MARK) == mark
            ):
                found.append(process)
    return found


def has_ended(process: psutil.Process) -> bool:
    """Also where its parent has not fetched its exit code yet, which a busy machine delays."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def gone(mark: str, within_s: float = 10.0) -> bool:
    """Whether all processes with `mark` end within that time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not marked(mark):
            return True
        time.sleep(0.05)
    return False
