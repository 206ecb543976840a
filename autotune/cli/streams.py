"""stdout and stderr that outlive what reads them.

A search takes minutes, and its result lies in a file: a pipe that closes, a disk that fills up or a terminal that hangs
up must not end it. What cannot be written is dropped from then on.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import TextIO

_STANDARD = (0, 1, 2)
_NOBODY_READS = (errno.EPIPE, errno.EBADF, errno.EIO)
"""A closed pipe, descriptor or terminal: whoever closed it wants no more."""


class _Lasting(io.FileIO):
    """A descriptor that becomes /dev/null with the first error of writing."""

    lost: OSError | None = None

    def write(self, data: object, /) -> int:
        view = memoryview(data)  # type: ignore[arg-type]  # whatever a buffered writer hands on
        try:
            return super().write(view) or 0
        except BlockingIOError:
            raise
        except OSError as error:
            self.lost = error
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return view.nbytes


def outlive_readers() -> None:
    """Have `sys.stdout` and `sys.stderr` raise nothing any more: neither for what reads them nor for characters that
    their encoding lacks. Closed ones are open again, on /dev/null, before a file gets their descriptors."""
    for descriptor in _STANDARD:
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number, which is this one
    sys.stdout = _lasting(sys.stdout, 1)
    sys.stderr = _lasting(sys.stderr, 2)


def lost_output() -> str | None:
    """Why something of what was printed on stdout could not be written; None: it was, or nobody wanted it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    lost = raw.lost if isinstance(raw, _Lasting) else None
    return None if lost is None or lost.errno in _NOBODY_READS else lost.strerror


def _lasting(stream: TextIO | None, descriptor: int) -> TextIO:
    """`stream` itself where it is not the one of `descriptor`: something has taken its place, such as a test."""
    try:
        if stream is not None and stream.fileno() != descriptor:
            return stream
    except (OSError, ValueError):
        return stream or _lasting(None, descriptor)
    encoding = stream.encoding if stream is not None else "utf-8"
    raw = _Lasting(descriptor, "w", closefd=False)
    lines = descriptor == _STANDARD[-1] or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=lines)
