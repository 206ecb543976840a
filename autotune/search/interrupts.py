"""Ctrl-C, and the signals that end a command like it, come at any moment; some things must not be left half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """A signal that comes inside waits for its end, and is handled there; a second one is handled at once. In other
    threads than the main one, to which Python brings no signals, it does nothing.

    A KeyboardInterrupt inside a database's transaction leaves a trial that seems to run; inside a callback of the
    garbage collector, of which SQLAlchemy has many, Python prints it and goes on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    handlers = {number: handler for number in _SIGNALS if callable(handler := signal.getsignal(number))}

    def keep(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))
        if len(came) > 1:
            handlers[signal.Signals(number)](number, frame)

    try:
        for number in handlers:
            signal.signal(number, keep)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if len(came) == 1:
            which, frame = came[0]
            handlers[signal.Signals(which)](which, frame)
