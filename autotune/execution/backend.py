"""What the search may rely on, wherever trials run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from autotune.records import Facts, TrialEvent, TrialRequest, TrialResult

OnEvent = Callable[[TrialEvent], None]
StartBackend = Callable[[dict[str, Any], Path], "Backend"]
"""Called with the resolved spec as JSON and the spec's own folder."""


class TrialLost(Exception):
    """The place where a trial ran is gone, and its result with it: that says nothing about the configuration."""


class Backend(Protocol):
    """A place where trials run.

    Guarantees: every trial has a process of its own; when `run` returns or raises, nothing of that process is left; a
    workload that crashes, hangs or raises comes back as a result with that status, never as an exception.
    """

    @property
    def slots(self) -> int:
        """How many trials may run at the same time: so many threads may be inside `run`."""
        ...

    @property
    def remarks(self) -> Sequence[str]:
        """What whoever relies on the figures should know about the place, a sentence each; more may come."""
        ...

    def facts(self, deadline_s: float) -> Facts:
        """Look at machine and workload. Raises WorkloadError, EnvironmentFailure, or NoStableConfiguration when the
        workload cannot be built within `deadline_s` seconds."""
        ...

    def run(self, request: TrialRequest, *, deadline_s: float, on_event: OnEvent) -> TrialResult:
        """Run one trial, killed after `deadline_s` seconds; `on_event` is called for each of its events as it comes.

        Raises TrialLost when its place is gone.
        """
        ...

    def close(self) -> None:
        """End every process, also from under a `run` in another thread. May be called twice."""
        ...
