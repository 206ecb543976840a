"""Temporary folders that are locked while they are in use: what a killed process has left behind, the next removes."""

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
"""Bytes of a socket's path: macOS allows so many, Linux 107."""
_OF_A_SOCKET = len("/pymp-12345678/listener-12345678")
"""As `multiprocessing` names them."""


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent`, with all in it removed in the end. Those of the same prefix that nobody holds are
    removed now; processes that are forked from here hold it as well.

    Raises OSError when it cannot be created.
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
    """Remove the scratch folders of this prefix in `parent` that nobody holds."""
    for folder in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB) as abandoned:
            if abandoned:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def socket_folder(scratch: Path, prefix: str) -> Iterator[Path]:
    """`scratch`; where paths of sockets in it would be longer than the kernel takes, a scratch folder in /tmp."""
    if len(os.fsencode(scratch)) + _OF_A_SOCKET <= _LONGEST or not _SHORT.is_dir():
        yield scratch
    else:
        with scratch_folder(_SHORT, prefix) as folder:
            yield folder


@contextlib.contextmanager
def _locked(folder: Path, how: int) -> Iterator[bool]:
    """Whether this process has the lock. Some network file systems lock no folders."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)  # a pipe of somebody else's would block
    try:
        try:
            fcntl.flock(descriptor, how)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
