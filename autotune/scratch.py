"""Temporary folders that are locked while they are in use: the next process removes what a killed process has left
behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_SHORT = Path("/tmp")
_LONGEST = 103
"""Longest path of a socket in bytes: the limit of macOS; Linux allows 107."""
_OF_A_SOCKET = len("/pymp-12345678/listener-12345678")
"""As `multiprocessing` names them."""


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent`, removed with its content in the end. Folders with the same prefix that no process holds
    are removed now. Forks of this process hold the new folder too.

    Raises OSError if it cannot be created.
    """
    remove_abandoned(parent, prefix)
    with contextlib.ExitStack() as stack:
        while True:
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            with contextlib.suppress(FileNotFoundError):
                stack.enter_context(_locked(folder, fcntl.LOCK_EX))
                if folder.exists():  # no other process has removed it before it was locked
                    break
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove the scratch folders with this prefix in `parent` that no process holds."""
    for folder in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB) as abandoned:
            if abandoned:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def socket_folder(scratch: Path, prefix: str) -> Iterator[Path]:
    """`scratch`, or a scratch folder in /tmp if paths of sockets in `scratch` would be too long for the kernel."""
    if len(os.fsencode(scratch)) + _OF_A_SOCKET <= _LONGEST or not _SHORT.is_dir():
        yield scratch
    else:
        with scratch_folder(_SHORT, prefix) as folder:
            yield folder


@contextlib.contextmanager
def _locked(folder: Path, how: int) -> Iterator[bool]:
    """Whether this process has the lock. Some network file systems lock no folders."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)  # a pipe of another user would block
    try:
        try:
            fcntl.flock(descriptor, how)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
