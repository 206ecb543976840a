"""Runs one trial for the study: on the backend, into the ledger, onto the board."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from autotune.execution import Backend
from autotune.records import (
    Block,
    Facts,
    Phase,
    Progress,
    Purpose,
    Running,
    Standing,
    TrialEvent,
    TrialRecord,
    TrialRequest,
    TrialStatus,
)
from autotune.search.budget import Budget
from autotune.search.figures import is_ok, samples_per_s
from autotune.search.ledger import Ledger
from autotune.search.predictions import in_words
from autotune.stats import throughput, throughput_interval

OnProgress = Callable[[Progress], None]
OnTrial = Callable[[TrialRecord], None]
_LEADERS = 5


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Whoever watches a study. An exception of theirs ends it, with what was measured kept."""

    on_progress: OnProgress = lambda _progress: None
    on_trial: OnTrial = lambda _record: None
    """Called with the record of every run that has ended, those that confirm and test included."""


class TrialRunner:
    """The one place where a trial's process, its record and the progress on the screen meet."""

    def __init__(
        self, study: str, backend: Backend, ledger: Ledger, budget: Budget, facts: Facts, listener: Listener
    ) -> None:
        self._study = study
        self._backend = backend
        self._ledger = ledger
        self._budget = budget
        self._facts = facts
        self._listener = listener
        self.phase = Phase.PREPARING

    def run(
        self,
        request: TrialRequest,
        purpose: Purpose,
        *,
        deadline_s: float,
        optuna_trial: int | None = None,
        round_number: int | None = None,
        patience_s: float | None = None,
    ) -> TrialRecord:
        """Run, keep the record, tell Optuna. An exception (Ctrl-C, a lost device) leaves no open Optuna trial.

        `patience_s`: how long a trial like this might take; one killed sooner, at its deadline, was cut short.
        """
        started = datetime.now(UTC).isoformat(timespec="seconds")
        predicted = self._ledger.predicted(optuna_trial)
        running = Running(
            config=request.config,
            purpose=purpose,
            since_s=self._budget.elapsed_s,
            round=round_number,
            predicted=predicted,
        )
        self.publish(running)
        blocks: list[Block] = []

        def follow(event: TrialEvent) -> None:
            if event.event == "block":
                blocks.append(Block.model_validate(event.payload["block"]))
                self.publish(running.model_copy(update=_so_far(blocks)))

        try:
            result = self._backend.run(request, deadline_s=deadline_s, on_event=follow)
        except BaseException:
            if optuna_trial is not None:
                self._ledger.withdraw(optuna_trial)
            raise
        record = TrialRecord(
            number=self._ledger.next_number,
            purpose=purpose,
            round=round_number,
            optuna_trial=optuna_trial,
            predicted=predicted,
            elapsed_s=self._budget.elapsed_s,
            cut_short=result.status is TrialStatus.TIMEOUT and patience_s is not None and deadline_s < patience_s,
            started=started,
            result=result,
            environment=self._facts,
        )
        self._ledger.file(record)
        self.publish(None, message=_outcome(record))
        self._listener.on_trial(record)
        return record

    def publish(self, running: Running | None, *, message: str = "") -> None:
        """Hand a snapshot of the study to whoever watches."""
        baseline = self._ledger.baseline()
        by_status: dict[str, int] = {}
        for record in self._ledger.records:
            by_status[record.result.status] = by_status.get(record.result.status, 0) + 1
        self._listener.on_progress(
            Progress(
                study=self._study,
                phase=self.phase,
                budget_s=self._budget.total_s,
                elapsed_s=self._budget.elapsed_s,
                baseline=standing(baseline) if baseline else None,
                leaders=tuple(standing(record) for record in self._ledger.eligible()[:_LEADERS]),
                best_so_far=self._ledger.best_so_far(),
                running=running,
                by_status=by_status,
                message=message,
            )
        )


def standing(record: TrialRecord) -> Standing:
    memory = record.result.memory
    return Standing(
        config=record.result.config,
        samples_per_s=samples_per_s(record),
        peak_memory_bytes=memory.peak_bytes if memory else 0,
    )


def _so_far(blocks: list[Block]) -> dict[str, Any]:
    interval = throughput_interval(blocks)
    ends = (interval.low, interval.high) if interval else None
    return {"samples_per_s": throughput(blocks), "samples_per_s_ci95": ends}


def _outcome(record: TrialRecord) -> str:
    result = record.result
    if is_ok(record):
        stopped = ", stopped: it can no longer win" if result.status is TrialStatus.PRUNED else ""
        expected = record.predicted
        beside = f", predicted {in_words(expected)}" if expected else ""
        return f"trial {record.number}: {samples_per_s(record):,.0f} samples/s{beside}{stopped}"
    return f"trial {record.number}: {result.status}: {result.failure.reason if result.failure else 'no timed block'}"
