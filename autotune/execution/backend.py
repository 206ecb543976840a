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
    """The node that ran a trial is gone, and the result is lost with it. This says nothing about the configuration."""


class Backend(Protocol):
    """A place where trials run.

    Guarantees: no two trials run in one process at the same time. A trial without `in_any_process` gets a process that
    has run nothing before. When `run` returns, nothing of the trial is left: its process has ended, or has freed what
    the trial held and waits. A workload that crashes, hangs or raises gives a result with that status, never an
    exception. If other trials ran in that process before, the trial was first repeated in a new process, unless its
    time was over.
    """

    @property
    def slots(self) -> int:
        """How many trials may run at the same time, so how many threads may be inside `run`."""
        ...

    @property
    def remarks(self) -> Sequence[str]:
        """What to know about this place before relying on its measurements, one sentence each. The list may grow."""
        ...

    def facts(self, deadline_s: float) -> Facts:
        """Look at machine and workload. Raises WorkloadError, EnvironmentFailure, or NoStableConfiguration when the
        workload cannot be built within `deadline_s` seconds."""
        ...

    def run(self, request: TrialRequest, *, deadline_s: float, on_event: OnEvent) -> TrialResult:
        """Run one trial; kill it after `deadline_s` seconds. `on_event` is called for each of its events as it arrives.

        Raises TrialLost when the node that ran it is gone.
        """
        ...

    def close(self) -> None:
        """End every process, even while another thread is inside `run`. May be called twice."""
        ...
