"""The controller's ends of a trial's two pipes: lines of events, and output (only the end of it is kept)."""

from __future__ import annotations

import contextlib
import os

_CHUNK_BYTES = 1 << 16
_MOST_CHUNKS = 16
_TAIL_BYTES = 16_384


class _Pipe:
    """A read end that never blocks and that a selector can wait for."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        os.close(self._descriptor)

    def _arrived(self) -> bytes:
        """The bytes that have arrived, up to a limit: endless output must not delay the controller."""
        chunks: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while len(chunks) < _MOST_CHUNKS and (chunk := os.read(self._descriptor, _CHUNK_BYTES)):
                chunks.append(chunk)
        return b"".join(chunks)


class LineReader(_Pipe):
    """Whole lines as they arrive; an incomplete last line of a process that died is never returned."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._rest = b""

    def read(self) -> list[bytes]:
        *lines, self._rest = (self._rest + self._arrived()).split(b"\n")
        return lines


class Drain(_Pipe):
    """Reads everything that a process prints, so that the process never blocks, and keeps the last 16 KiB."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._kept = b""

    def restart(self) -> None:
        """Forget what was printed so far: another run begins."""
        self.read()
        self._kept = b""

    def read(self) -> None:
        self._kept = (self._kept + self._arrived())[-_TAIL_BYTES:]

    def tail(self) -> str:
        """The end of what was printed, terminal escapes included; bytes that are not text are replaced."""
        self.read()
        return self._kept.decode(errors="replace")
