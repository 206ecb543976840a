"""Whole studies, decided without a ledger, a runner or a process: a list of records is all that there is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from support.deciding import BASE, BF16, BF16_TWO, FOUR, TWO, beginning, so_far
from support.facts import cpu_facts
from support.simulation import Clock, FormulaBackend

from autotune.config import TrainConfig
from autotune.records import Purpose, TrialRecord
from autotune.search.budget import Budget
from autotune.search.decide.actions import Measure, Run, Stop, Try, Wait
from autotune.search.decide.decide import decide
from autotune.search.decide.explore import search_trial
from autotune.search.decide.verdict import Verdict

RATES = {BASE: 1000.0, TWO: 1200.0, BF16: 1500.0, FOUR: 1100.0, BF16_TWO: 1800.0}


class Session:
    """One session of a study: a clock, a machine, and what was on record before."""

    def __init__(self, before: Sequence[TrialRecord] = ()) -> None:
        self.records = list(before)
        self._clock = Clock()
        self._budget = Budget(300.0, self._clock)
        self._budget.carry_over(max((record.elapsed_s for record in before), default=0.0))
        self._machine = FormulaBackend(self._clock, cpu_facts(), RATES.__getitem__, noise=0.002, busy=0.0)
        self._found = so_far(self.records, known_before=len(self.records), seeds=tuple(RATES))
        self.runs: list[Run] = []

    def to_its_end(self) -> Verdict:
        session, flying = beginning(self._found), list[Run]()
        while True:
            untried = [config for config in RATES if config not in {record.result.config for record in self.records}]
            study = dataclasses.replace(
                self._found,
                records=tuple(self.records),
                budget=self._budget.now,
                exhausted=not untried,
                in_flight=len(flying),
                has_room=not flying,
            )
            decision = decide(study, session)
            session = decision.session
            match decision.action:
                case Stop(verdict):
                    assert verdict is not None
                    return verdict
                case Measure():
                    flying.append(search_trial(study, untried[0]))
                case Wait():
                    self._run(flying.pop(), optuna=True)
                case Run() as run:
                    self._run(run, optuna=isinstance(run, Try))

    def _run(self, run: Run, *, optuna: bool) -> None:
        self.runs.append(run)
        result = self._machine.run(run.request, deadline_s=run.deadline_s, on_event=lambda _event: None)
        number = len(self.records)
        self.records.append(
            TrialRecord(
                number=number,
                purpose=run.purpose,
                round=run.round,
                optuna_trial=number if optuna else None,
                elapsed_s=self._budget.elapsed_s,
                started="",
                result=result,
                environment=cpu_facts(),
            )
        )


@pytest.fixture(scope="module")
def whole() -> tuple[Session, Verdict]:
    session = Session()
    return session, session.to_its_end()


def test_a_study_goes_from_the_baseline_to_a_stable_verdict(whole: tuple[Session, Verdict]) -> None:
    session, verdict = whole
    assert (verdict.config, verdict.word) == (BF16_TWO, "stable")
    purposes = list(dict.fromkeys(record.purpose for record in session.records))
    assert purposes == [
        Purpose.BASELINE,
        Purpose.REPEAT,
        Purpose.SEED,
        Purpose.CONFIRM,
        Purpose.REFERENCE,
        Purpose.PROBE,
        Purpose.SOAK,
    ]


def of_search(records: Sequence[TrialRecord]) -> list[TrainConfig]:
    return [record.result.config for record in records if record.optuna_trial is not None]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.4, 0.55, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_one_that_was_interrupted_goes_on_from_its_records(whole: tuple[Session, Verdict], share: float) -> None:
    """Nothing is run twice but the round that was under way, and it comes to the same end."""
    records = whole[0].records
    before = records[: round(share * len(records))]
    later = Session(before)
    verdict = later.to_its_end()
    assert (verdict.config, verdict.word) == (BF16_TWO, "stable")
    assert sorted(of_search(later.records), key=TrainConfig.canonical_json) == sorted(
        RATES, key=TrainConfig.canonical_json
    )
    once = (Purpose.REFERENCE, Purpose.PROBE, Purpose.SOAK)
    assert [record.purpose for record in later.records if record.purpose in once] == list(once)
    assert (later.runs == []) is (share == 1.0)
