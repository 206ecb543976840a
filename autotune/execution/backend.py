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

    Guarantees: no two trials run in one process at the same time; one that does not say `in_any_process` has a process
    that has run nothing before. When `run` returns, nothing of the trial is left: its process has ended, or has freed
    what the trial held and waits. A workload that crashes, hangs or raises comes back as a result with that status,
    never as an exception; where other trials had run in its process before, it has failed again in a new one, or its
    time was over.
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
