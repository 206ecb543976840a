"""The loop of a study: do what was decided, keep what came of it, decide again. It decides nothing itself."""

from __future__ import annotations

from collections.abc import Callable

from autotune.search.budget import Budget
from autotune.search.decide.actions import Action, Measure, Run, Stop, Try, Wait
from autotune.search.decide.decide import decide
from autotune.search.decide.explore import needed_for_confirming_s, search_trial, side_alone
from autotune.search.decide.session import Exploring, Session
from autotune.search.decide.study import StudySoFar
from autotune.search.decide.verdict import Verdict
from autotune.search.ledger import Ledger
from autotune.search.runner import TrialRunner
from autotune.search.telling import NothingWorthTrying


class Loop:
    """One session of a study."""

    def __init__(
        self,
        study: StudySoFar,
        *,
        ledger: Ledger,
        runner: TrialRunner,
        budget: Budget,
        on_standing: Callable[[Verdict], object],
    ) -> None:
        """`study`: as the session finds it. `on_standing` is called with what would be emitted if it ended now, as
        often as that changes."""
        self._study = study
        self._ledger = ledger
        self._runner = runner
        self._budget = budget
        self._on_standing = on_standing
        self._nothing_worth_trying = False
        self._exhausted, self._asked_at = False, (-1, -1)

    def run(self) -> Verdict | None:
        """Up to the verdict; None where not even the baseline was measured. Raises NoStableConfiguration."""
        session = Session(stage=Exploring.of(self._so_far()))
        while True:
            decision = decide(self._so_far(), session)
            if isinstance(decision.action, Stop):
                return decision.action.verdict
            if decision.stands is not None:
                self._on_standing(decision.stands)
            self._do(decision.action)
            session = decision.session

    def _so_far(self) -> StudySoFar:
        self._study = self._study.later(
            tuple(self._ledger.records),
            budget=self._budget.now,
            exhausted=self._is_exhausted(),
            nothing_worth_trying=self._nothing_worth_trying,
            in_flight=self._runner.in_flight,
            one_at_a_time=self._runner.runs_one_at_a_time,
            has_room=self._runner.has_room,
        )
        return self._study

    def _is_exhausted(self) -> bool:
        """Asked of the storage after search trials only: it may be on a server, and rounds can do without it."""
        now = sum(record.optuna_trial is not None for record in self._ledger.records), self._runner.in_flight
        if now != self._asked_at:
            self._exhausted, self._asked_at = self._ledger.exhausted, now
        return self._exhausted

    def _do(self, action: Action) -> None:
        match action:
            case Measure():
                self._begin(action)
            case Wait():
                self._runner.next_ended()
                self._budget.reserve_for_confirming(needed_for_confirming_s(self._so_far()))
            case Try():
                self._try(action)
            case Run():
                self._runner.run(action)
        self._nothing_worth_trying = self._nothing_worth_trying and isinstance(action, Measure)

    def _begin(self, measure: Measure) -> None:
        if measure.planned is not None:
            self._ledger.strategy.planned.append(measure.planned)
        aside = self._ledger.next_side() if measure.or_side else None
        if aside is not None:
            self._runner.begin(side_alone(self._so_far(), aside))
            return
        try:
            number, config = self._ledger.ask()
        except NothingWorthTrying:
            self._nothing_worth_trying = True
            return
        trial = search_trial(self._so_far(), config)
        self._runner.begin(trial, optuna_trial=number)

    def _try(self, trial: Try) -> None:
        config = trial.request.config
        self._ledger.strategy.planned.append(config)
        try:
            number, asked = self._ledger.ask()
        except NothingWorthTrying:  # another session of the study has tried it
            return
        if asked != config:  # it is under way there
            self._ledger.withdraw(number)
            return
        self._runner.run(trial, optuna_trial=number)
