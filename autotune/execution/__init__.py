"""Where trial processes run. The search knows `Backend` only; each file of this folder that offers one is a place."""

from __future__ import annotations

from autotune.execution.backend import Backend, OnEvent, StartBackend
from autotune.execution.local import LocalBackend
from autotune.execution.machine import look_at_machine

__all__ = ["Backend", "LocalBackend", "OnEvent", "StartBackend", "look_at_machine"]
