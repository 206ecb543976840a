"""A module that starts a thread when it is imported: a process that has imported it must not be forked."""

from __future__ import annotations

import threading
import time

from misbehaving import build_data, build_model

__all__ = ["build_data", "build_model"]

threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
