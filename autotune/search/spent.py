"""A study that is resumed when hardly anything of its budget is left: its records are judged, and nothing starts."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.errors import EnvironmentFailure
from autotune.execution import OnEvent
from autotune.records import Facts, TrialRecord, TrialRequest, TrialResult
from autotune.search.policy import EMIT_RESERVE_S, LONGEST_RESTART_S


def facts_of_the_spent(records: Sequence[TrialRecord], total_s: float, elapsed_s: float) -> Facts | None:
    """What is known of machine and workload, where another start would take all that is left of `total_s`; None where
    there is time for more. `elapsed_s`: since this command began."""
    if not records:
        return None
    first = records[0]
    start_s = min(max(first.elapsed_s - first.result.wall_s, 0.0), LONGEST_RESTART_S)
    left_s = total_s - EMIT_RESERVE_S - max(record.elapsed_s for record in records) - elapsed_s
    return records[-1].environment if left_s <= start_s else None


class NothingRuns:
    """The backend of such a study: there is no time for it to be asked."""

    slots = 1
    remarks: Sequence[str] = ()

    def facts(self, deadline_s: float) -> Facts:
        raise EnvironmentFailure("the budget is used up, so nothing was started")

    def run(self, request: TrialRequest, *, deadline_s: float, on_event: OnEvent) -> TrialResult:
        raise EnvironmentFailure("the budget is used up, so nothing was started")

    def close(self) -> None: ...
