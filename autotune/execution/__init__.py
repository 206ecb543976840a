"""Where trial processes run. The search knows only the `Backend` protocol; the modules of this folder implement it."""

from __future__ import annotations

from autotune.execution.backend import Backend, OnEvent, StartBackend, TrialLost
from autotune.execution.local import LocalBackend, remove_leftovers
from autotune.execution.machine import look_at_machine
from autotune.execution.residence import cost_of
from autotune.execution.start import start_all, start_alone

__all__ = [
    "Backend",
    "LocalBackend",
    "OnEvent",
    "StartBackend",
    "TrialLost",
    "cost_of",
    "look_at_machine",
    "remove_leftovers",
    "start_all",
    "start_alone",
]
