"""JSON lines over a descriptor: requests to a trial, its reports, and messages between the template and the
controller."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

from autotune.records import TrialEvent

_MOST_DESCRIPTORS = 3
_CHUNK_BYTES = 1 << 16


class Reporter:
    """Writes a trial's events to a pipe, whole lines at a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, event: str, payload: dict[str, Any] | None = None) -> None:
        line = TrialEvent(event=event, at_s=time.monotonic(), payload=payload or {}).model_dump_json()
        data = line.encode() + b"\n"
        while data:
            data = data[os.write(self._descriptor, data) :]


class Requests:
    """The messages to a trial's process: a request and, after its result, whether to get ready for another."""

    def __init__(self, descriptor: int) -> None:
        self._lines = os.fdopen(descriptor, "rb")

    def next(self) -> Any:
        """Wait for the next message; None when no more follow."""
        line = self._lines.readline()
        return json.loads(line) if line.endswith(b"\n") else None


class ControlLine:
    """The template's end of the control socket: it receives messages with their descriptors, and sends messages."""

    def __init__(self, control: socket.socket) -> None:
        self.socket = control
        self._buffer = b""
        self._descriptors: list[int] = []

    def receive(self) -> list[dict[str, Any]] | None:
        """Messages that have arrived since the last call; None when the controller is gone. Blocks for the first."""
        data, descriptors, _flags, _address = socket.recv_fds(self.socket, _CHUNK_BYTES, _MOST_DESCRIPTORS)
        self._descriptors += descriptors
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def take_descriptors(self, count: int) -> list[int]:
        taken, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        return taken

    def send(self, message: dict[str, Any]) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n")
