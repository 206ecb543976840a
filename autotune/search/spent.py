"""A study that is resumed when hardly anything of its budget is left: its records are judged, and nothing starts."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.errors import EnvironmentFailure
from autotune.execution import OnEvent, remove_leftovers
from autotune.records import Facts, TrialRecord, TrialRequest, TrialResult
from autotune.search.policy import EMIT_RESERVE_S, LONGEST_RESTART_S
from autotune.spec.durations import usual_duration


def facts_of_the_spent(records: Sequence[TrialRecord], total_s: float, elapsed_s: float) -> Facts | None:
    """What is known of machine and workload, where another start would take all that is left of `total_s`; None where
    there is time for more. `elapsed_s`: since this command began."""
    if not records or _left_s(records, total_s, elapsed_s) > _start_s(records):
        return None
    return records[-1].environment


def _left_s(records: Sequence[TrialRecord], total_s: float, elapsed_s: float) -> float:
    return total_s - EMIT_RESERVE_S - max(record.elapsed_s for record in records) - elapsed_s


def _start_s(records: Sequence[TrialRecord]) -> float:
    return min(max(records[0].elapsed_s - records[0].result.wall_s, 0.0), LONGEST_RESTART_S)


class NothingRuns:
    """The backend of such a study: there is no time for it to be asked. Says so, and what would do."""

    slots = 1

    def __init__(self, records: Sequence[TrialRecord], total_s: float, elapsed_s: float) -> None:
        left_s, start_s = _left_s(records, total_s, elapsed_s), _start_s(records)
        enough = usual_duration(total_s - left_s + 2 * start_s + EMIT_RESERVE_S)
        self.remarks: Sequence[str] = (
            f"Nothing was run this time: {max(left_s, 0):.0f} s of the budget were left, and a start takes about "
            f"{start_s:.0f} s. Use at least --budget {enough}.",
        )

    def facts(self, deadline_s: float) -> Facts:
        raise EnvironmentFailure("the budget is used up, so nothing was started")

    def run(self, request: TrialRequest, *, deadline_s: float, on_event: OnEvent) -> TrialResult:
        raise EnvironmentFailure("the budget is used up, so nothing was started")

    def close(self) -> None:
        remove_leftovers()
