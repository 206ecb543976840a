"""The controller's handle on the template process, `autotune.trial.template`: started by name, never imported."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Any, Protocol

from autotune.interpreter import environment, trial_command

_CLOSE_GRACE_S = 3.0
_CHUNK_BYTES = 1 << 16


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class TemplateDied(Exception):
    """The template ended, or no longer answers."""


class Template:
    """A running template process. It ends, with all its trials, when its socket closes or the controller dies."""

    fresh = False
    """Whether each trial must start in a fresh interpreter instead of a fork."""

    def __init__(self, setting: dict[str, Any], variables: Mapping[str, str] | None = None) -> None:
        """`variables`: environment variables in addition to those of this process."""
        mine, theirs = socket.socketpair()
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        with theirs:
            self._process = subprocess.Popen(
                trial_command("template", theirs.fileno(), os.getpid()),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment(variables),
            )
        self._socket = mine
        self._rest = b""
        self._send(json.dumps(setting).encode() + b"\n", [])

    def send(self, message: dict[str, Any], *descriptors: int) -> None:
        """Request a run; the descriptors become its pipes for events and output. Raises TemplateDied."""
        self._send(json.dumps(message | {"fresh": self.fresh}).encode() + b"\n", list(descriptors))

    def kill(self, run: str) -> None:
        self._send(json.dumps({"kill": run}).encode() + b"\n", [])

    def wait(self, others: Sequence[HasFileno], timeout_s: float) -> list[dict[str, Any]]:
        """Sleep until a message arrives, one of `others` is readable, or the time is over. Raises TemplateDied."""
        with selectors.DefaultSelector() as selector:
            for readable in (self._socket, *others):
                selector.register(readable.fileno(), selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select(max(timeout_s, 0.0))}
        return self._messages() if self._socket.fileno() in ready else []

    def end(self) -> None:
        """Kill the process, and with it its trials; from any thread, and without waiting."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process and all its trials: close the socket, and kill the process if it does not end."""
        self._socket.close()
        try:
            self._process.wait(_CLOSE_GRACE_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._output.close()

    def _send(self, data: bytes, descriptors: list[int]) -> None:
        try:
            sent = socket.send_fds(self._socket, [data], descriptors)
            self._socket.sendall(data[sent:])
        except OSError as error:
            raise TemplateDied(self._last_words()) from error

    def _messages(self) -> list[dict[str, Any]]:
        try:
            data = self._socket.recv(_CHUNK_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            raise TemplateDied(self._last_words())
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def _last_words(self) -> str:
        self._output.seek(0, os.SEEK_END)
        self._output.seek(max(self._output.tell() - 4000, 0))
        return f"exit code {self._process.poll()}; {self._output.read().decode(errors='replace').strip()}"
