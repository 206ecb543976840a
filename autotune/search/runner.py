"""Runs one trial for the study: on the backend, into the ledger, onto the board."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from autotune.errors import EnvironmentFailure
from autotune.execution import Backend, TrialLost
from autotune.records import (
    Block,
    Facts,
    Failure,
    Phase,
    Progress,
    Rates,
    Running,
    Standing,
    TrialEvent,
    TrialRecord,
    TrialResult,
    TrialStatus,
)
from autotune.search.budget import Budget
from autotune.search.decide.actions import Run
from autotune.search.figures import is_ok, samples_per_s
from autotune.search.flights import flights_on
from autotune.search.ledger import Ledger
from autotune.search.policy import MOST_LOSSES
from autotune.search.predictions import in_words
from autotune.spec.durations import usual_duration
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


@dataclass
class _Flight:
    """A trial that runs, and what its record will need beside the result."""

    run: Run
    running: Running
    started: str
    optuna_trial: int | None
    blocks: list[Block] = field(default_factory=list)


class TrialRunner:
    """The one place where a trial's process, its record and the progress on the screen meet."""

    def __init__(
        self, study: str, backend: Backend, ledger: Ledger, budget: Budget, facts: Facts, listener: Listener
    ) -> None:
        self._study = study
        self._backend = backend
        self._flights = flights_on(backend)
        self._ledger = ledger
        self._budget = budget
        self._facts = facts
        self._listener = listener
        self._aloft: dict[int, _Flight] = {}
        self._begun = itertools.count()
        self._said = 0
        """How many of the backend's remarks."""
        self._idle_since_s: float | None = None
        """Since the end of a run; None: one has begun."""
        self.phase = Phase.PREPARING

    @property
    def in_flight(self) -> int:
        return len(self._aloft)

    @property
    def runs_one_at_a_time(self) -> bool:
        return self._backend.slots == 1

    @property
    def has_room(self) -> bool:
        """Whether another trial may begin before one has ended."""
        return self.in_flight < self._backend.slots

    def run(self, run: Run, *, optuna_trial: int | None = None) -> TrialRecord:
        """One trial alone, from its beginning to its record; again, where its place was lost.

        Raises EnvironmentFailure when that happens too often.
        """
        for _ in range(MOST_LOSSES):
            self.begin(run, optuna_trial=optuna_trial)
            record = self.next_ended()
            if record is not None:
                return record
        raise EnvironmentFailure(f"{MOST_LOSSES} times in a row the machine of a trial was lost; stopping")

    def begin(self, run: Run, *, optuna_trial: int | None = None) -> None:
        """Start a trial; `next_ended` has its record.

        Its deadline stems from before the decision, and before the strategy was asked, which take seconds on a busy
        machine: not past the budget's end as it is now.
        """
        run = dataclasses.replace(run, deadline_s=max(min(run.deadline_s, self._budget.remaining_s), 0.0))
        self._note_pause(begins=True)
        flight = _Flight(
            run=run,
            running=Running(
                config=run.request.config,
                purpose=run.purpose,
                since_s=self._budget.elapsed_s,
                round=run.round,
                predicted=self._ledger.predicted(optuna_trial),
            ),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            optuna_trial=optuna_trial,
        )
        number = next(self._begun)
        self._aloft[number] = flight
        self.phase = run.phase
        try:
            self._say_remarks()
            self.publish()
            self._flights.begin(number, run.request, run.deadline_s)
        except BaseException:
            self._withdraw_all()
            raise

    def next_ended(self) -> TrialRecord | None:
        """Wait until a trial ends, keep its record, tell Optuna. None where its place was lost: Optuna is told that it
        says nothing about its configuration, which may come again.

        An exception (Ctrl-C, a lost device) leaves no open Optuna trial.
        """
        try:
            number, ended = self._flights.next_end(self._follow)
        except BaseException:
            self._withdraw_all()
            raise
        flight = self._aloft.pop(number)
        self._say_remarks()
        if isinstance(ended, TrialLost):
            if flight.optuna_trial is not None:
                self._ledger.withdraw(flight.optuna_trial)
            self.publish(message=f"a trial was lost and runs again: {ended}")
            return None
        record = self._record(flight, ended)
        self._ledger.file(record)
        self.publish(message=_outcome(record))
        self._listener.on_trial(record)
        self._note_pause(begins=False)
        return record

    def _note_pause(self, *, begins: bool) -> None:
        """A run `begins`, or has ended."""
        now_s = self._budget.elapsed_s
        if begins and self._idle_since_s is not None:
            self._budget.note_between_runs(now_s - self._idle_since_s)
        self._idle_since_s = None if begins else now_s

    def _say_remarks(self) -> None:
        for remark in self._backend.remarks[self._said :]:
            self._said += 1
            self.publish(message=remark)

    def _record(self, flight: _Flight, result: TrialResult) -> TrialRecord:
        short = flight.run.patience_s is not None and flight.run.deadline_s < flight.run.patience_s
        if result.status is TrialStatus.TIMEOUT and short:
            reason = why_cut_short(self._ledger.records, flight.run, self._budget.total_s)
            result = result.model_copy(update={"failure": Failure(reason=reason)}) if reason else result
        return TrialRecord(
            number=self._ledger.next_number,
            purpose=flight.running.purpose,
            round=flight.running.round,
            optuna_trial=flight.optuna_trial,
            predicted=flight.running.predicted,
            elapsed_s=self._budget.elapsed_s,
            cut_short=result.status is TrialStatus.TIMEOUT and short,
            started=flight.started,
            result=result,
            environment=self._facts,
        )

    def _follow(self, number: int, event: TrialEvent) -> None:
        flight = self._aloft[number]
        if event.event == "block" and flight.run.request.side is None:
            flight.blocks.append(Block.model_validate(event.payload["block"]))
            rates = event.payload.get("rates")
            flight.running = flight.running.model_copy(
                update=_so_far(flight.blocks, Rates.model_validate(rates) if rates else None)
            )
            self.publish()

    def _withdraw_all(self) -> None:
        for flight in self._aloft.values():
            if flight.optuna_trial is not None:
                self._ledger.withdraw(flight.optuna_trial)
        self._aloft.clear()

    def publish(self, *, message: str = "") -> None:
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
                leaders=tuple(standing(record) for record in self._ledger.leaders()[:_LEADERS]),
                best_so_far=self._ledger.best_so_far(),
                running=tuple(flight.running for flight in self._aloft.values()),
                by_status=by_status,
                message=message,
            )
        )


def why_cut_short(records: Sequence[TrialRecord], run: Run, budget_s: float) -> str | None:
    """What a run that the budget's end has stopped would have needed, by those before it; None where they took no
    longer than it."""
    done, left_s = list(filter(is_ok, records)), run.deadline_s
    alike = [record for record in done if record.purpose is run.purpose] or done
    needed_s = statistics.median(record.result.wall_s for record in alike) if alike else 0.0
    if needed_s <= left_s:
        return None
    enough = usual_duration(budget_s + needed_s - left_s)
    return f"the budget left {left_s:.0f} s; a trial here needs about {needed_s:.0f} s; use at least {enough}"


def standing(record: TrialRecord) -> Standing:
    memory = record.result.memory
    return Standing(
        config=record.result.config,
        samples_per_s=samples_per_s(record),
        peak_memory_bytes=memory.peak_bytes if memory else 0,
    )


def _so_far(blocks: list[Block], rates: Rates | None) -> dict[str, Any]:
    """`rates`: as the trial itself makes them out so far; None of a backend that does not say."""
    interval = throughput_interval(blocks)
    scale = rates.sustained_per_s / throughput(blocks) if rates else 1.0
    ends = (interval.low * scale, interval.high * scale) if interval else None
    return {"samples_per_s": throughput(blocks) * scale, "samples_per_s_ci95": ends}


def _outcome(record: TrialRecord) -> str:
    result = record.result
    if result.side_rate is not None:
        does = "takes" if result.side == "step" else "delivers"
        return f"trial {record.number}: the {result.side} alone {does} {result.side_rate.per_s:,.0f} samples/s"
    if is_ok(record):
        stopped = ", stopped early: it cannot win" if result.status is TrialStatus.PRUNED else ""
        expected = record.predicted
        beside = f", predicted {in_words(expected)}" if expected else ""
        return f"trial {record.number}: {samples_per_s(record):,.0f} samples/s{beside}{stopped}"
    return f"trial {record.number}: {result.status}: {result.failure.reason if result.failure else 'no timed block'}"
