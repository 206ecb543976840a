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
    """Signals that come inside wait for its end, and are handled there. In other threads than the main one, to which
    Python brings no signals, it does nothing.

    A KeyboardInterrupt inside a database's transaction leaves a trial that seems to run; inside a callback of the
    garbage collector, of which SQLAlchemy has many, Python prints it and goes on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    handlers = {number: handler for number in _SIGNALS if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for which, frame in came:
            handlers[signal.Signals(which)](which, frame)
