"""The loop does what was decided, and says what came of it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.deciding import BASE, BF16, BF16_TWO, FOUR, TWO, confirming, in_rounds, searched, so_far
from support.facts import cpu_facts
from support.simulation import Clock

from autotune.config import TrainConfig
from autotune.execution import OnEvent
from autotune.records import Purpose, TrialRecord, TrialRequest, TrialResult, TrialStatus
from autotune.search import loop
from autotune.search.budget import Budget
from autotune.search.decide.actions import Action, Measure, Run, Stop, Try, Wait
from autotune.search.decide.confirm import trial_of
from autotune.search.decide.decide import Decision
from autotune.search.decide.judging import provisional
from autotune.search.decide.session import Session
from autotune.search.decide.study import StudySoFar
from autotune.search.ledger import Ledger
from autotune.search.runner import Listener, TrialRunner
from autotune.search.telling import NothingWorthTrying

SEARCHED = list(so_far(searched({BASE: 1000.0, TWO: 1200.0})).records)


class Books:
    """A ledger that proposes what it is told to; None: that nothing is worth a trial."""

    def __init__(self, proposals: list[TrainConfig | None]) -> None:
        self.records: list[TrialRecord] = list(SEARCHED)
        self.exhausted = False
        self.strategy = SimpleNamespace(planned=[])
        self.withdrawn: list[int] = []
        self._proposals = proposals

    def ask(self) -> tuple[int, TrainConfig]:
        config = self._proposals.pop(0)
        if config is None:
            raise NothingWorthTrying
        return 7, config

    def withdraw(self, number: int) -> None:
        self.withdrawn.append(number)


class Slow:
    """A backend whose trials take as long as they may."""

    slots, remarks = 1, ()

    def run(self, request: TrialRequest, *, deadline_s: float, on_event: OnEvent) -> TrialResult:
        return TrialResult(config=request.config, status=TrialStatus.TIMEOUT, seed=0, wall_s=deadline_s)


class Filed(Books):
    """A ledger that keeps records."""

    next_number = 9

    def predicted(self, _number: int | None) -> None: ...

    def baseline(self) -> None: ...

    def best_so_far(self) -> tuple[float, ...]:
        return ()

    def leaders(self) -> list[TrialRecord]:
        return []

    def file(self, record: TrialRecord) -> None:
        self.records.append(record)


@pytest.mark.parametrize(("thought_s", "left_s"), [(0.0, 40.0), (270.0, 29.0), (310.0, 0.0)])
def test_what_was_decided_slowly_still_ends_within_the_budget(thought_s: float, left_s: float) -> None:
    clock, books = Clock(), Filed([])
    budget = Budget(300.0, clock)
    runner = TrialRunner("study", cast(Any, Slow()), cast(Ledger, books), budget, cpu_facts(), Listener())
    run = dataclasses.replace(trial_of(confirming(so_far(SEARCHED)), TWO), deadline_s=40.0, patience_s=40.0)
    clock.now_s += thought_s
    record = runner.run(run)
    assert record.result.wall_s == left_s
    assert record.cut_short is (left_s < 40.0)


def test_what_decisions_take_is_kept_of_the_budget() -> None:
    clock, books = Clock(), Filed([])
    budget = Budget(300.0, clock)
    runner = TrialRunner("study", cast(Any, Slow()), cast(Ledger, books), budget, cpu_facts(), Listener())
    run = trial_of(confirming(so_far(SEARCHED)), TWO)
    clock.advance(50.0)  # to start: that is no decision
    runner.run(run)
    assert budget.remaining_s == 249.0
    for left_s, between_s in ((241.0, 0.0), (233.0, 8.0), (232.0, 1.0)):  # the shorter of two pauses
        clock.advance(1.0 if left_s == 232.0 else 8.0)
        runner.run(run)
        assert budget.remaining_s == left_s - 2 * between_s


class Hands:
    """A runner that only remembers."""

    in_flight, has_room, runs_one_at_a_time = 0, True, True

    def __init__(self) -> None:
        self.done: list[tuple[str, TrainConfig | None, int | None]] = []

    def begin(self, run: Run, *, optuna_trial: int | None = None) -> None:
        self.done.append(("begin", run.request.config, optuna_trial))

    def run(self, run: Run, *, optuna_trial: int | None = None) -> None:
        self.done.append(("run", run.request.config, optuna_trial))

    def next_ended(self) -> None:
        self.done.append(("wait", None, None))


def run_through(
    monkeypatch: pytest.MonkeyPatch, books: Books, actions: list[Action], stands: Any = None
) -> tuple[Hands, list[StudySoFar], list[Any], Budget]:
    """What was done, what was seen before each decision, what was said to stand."""
    hands, seen, standing, budget = Hands(), list[StudySoFar](), [], Budget(300.0, Clock())
    script = [*actions, Stop(None)]

    def decide(study: StudySoFar, session: Session) -> Decision:
        seen.append(study)
        return Decision(action=script.pop(0), session=session, stands=stands)

    monkeypatch.setattr(loop, "decide", decide)
    ledger, runner = cast(Ledger, books), cast(TrialRunner, hands)
    study = so_far(SEARCHED)
    loop.Loop(study, ledger=ledger, runner=runner, budget=budget, on_standing=standing.append).run()
    return hands, seen, standing, budget


def test_what_the_strategy_proposes_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    books = Books([FOUR, TWO])
    hands, *_ = run_through(monkeypatch, books, [Measure(), Measure(planned=TWO)])
    assert hands.done == [("begin", FOUR, 7), ("begin", TWO, 7)]
    assert books.strategy.planned == [TWO]


def test_that_nothing_is_worth_a_trial_holds_until_the_next_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    hands, seen, *_ = run_through(
        monkeypatch, Books([None, TWO, FOUR]), [Measure(), Measure(planned=TWO), Wait(), Measure()]
    )
    assert [study.nothing_worth_trying for study in seen] == [False, True, True, False, False]
    assert [done[0] for done in hands.done] == ["begin", "wait", "begin"]


def test_time_is_kept_for_confirming_after_each_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    books = Books([])
    slow = searched({BASE: 20.0, TWO: 30.0})
    books.records = list(so_far(slow).records)
    *_, budget = run_through(monkeypatch, books, [])
    kept_before_s = budget.now.search_remaining_s
    *_, budget = run_through(monkeypatch, books, [Wait()])
    assert budget.now.search_remaining_s < kept_before_s


@pytest.mark.parametrize("asked", [TWO, FOUR, None])
def test_a_trial_that_another_session_runs_or_ran_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch, asked: TrainConfig | None
) -> None:
    rounds = in_rounds({BASE: [1000.0] * 2, BF16_TWO: [1500.0] * 2})
    study = so_far([*searched({BASE: 1000.0, BF16_TWO: 1500.0, BF16: 1000.0}), *rounds])
    trial = trial_of(confirming(study), TWO)
    assert isinstance(trial, Try)
    assert trial.purpose is Purpose.SEARCH
    books = Books([asked])
    hands, *_ = run_through(monkeypatch, books, [trial])
    assert books.strategy.planned == [TWO]
    assert hands.done == ([("run", TWO, 7)] if asked == TWO else [])
    assert books.withdrawn == ([7] if asked == FOUR else [])


def test_what_stands_is_said_before_the_next_action_and_not_beside_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = provisional(so_far(SEARCHED))
    _, _, standing, _ = run_through(monkeypatch, Books([FOUR]), [Measure()], stands=verdict)
    assert standing == [verdict]


def test_what_is_seen_is_what_is_on_record_now(monkeypatch: pytest.MonkeyPatch) -> None:
    books = Books([FOUR])
    _, seen, *_ = run_through(monkeypatch, books, [Measure()])
    assert [list(study.records) for study in seen] == [SEARCHED, SEARCHED]
    assert all(study.has_room and not study.in_flight for study in seen)
