"""One search against a table: a strategy asked and told as in a study, at the recorded costs, on a clock of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import optuna

from autotune.config import TrainConfig
from autotune.execution.replay import ReplayBackend
from autotune.records import Facts, Purpose, Table, TrialRecord, TrialRequest, TrialResult, TrialStatus
from autotune.search import Space
from autotune.search.budget import patience_s
from autotune.search.figures import is_ok, samples_per_s
from autotune.search.gates import violations
from autotune.search.racing import hopeless_below, restart_spread
from autotune.search.strategies import STRATEGIES, Strategy, StrategyContext
from autotune.search.telling import OnlyRisksLeft, ask, sampler_of, tell
from autotune.spec import Constraint

FINALISTS = 3
"""A study confirms the three fastest, and emits the best of them: that is what a search has found."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One trial of a replayed search."""

    config: TrainConfig
    status: TrialStatus
    ended_at_s: float
    """Trial seconds since the search began, those of earlier trials included."""
    samples_per_s: float | None
    """None where it came to no figure, or to one that breaks a constraint."""
    ask_s: float = field(compare=False)
    """What choosing the configuration took, in real seconds."""


@dataclass(frozen=True)
class Bench:
    """A table with the space that it covers, and what every configuration of it truly is worth."""

    table: Table
    space: Space
    truth: Mapping[TrainConfig, float]
    """Samples per second over all recorded runs; configurations that fail, or break a constraint, are not in it."""
    constraints: Sequence[Constraint] = ()
    """On measures."""

    @cached_property
    def best_config(self) -> TrainConfig:
        return max(self.truth, key=lambda config: self.truth[config])

    def worth(self, config: TrainConfig) -> float:
        """Samples per second; 0 for what could not be emitted."""
        return self.truth.get(config, 0.0)

    def meets_constraints(self, record: TrialRecord) -> bool:
        return max(violations(record, self.constraints), default=0.0) <= 0

    @property
    def best(self) -> float:
        return self.truth[self.best_config]


class Contender(NamedTuple):
    """A strategy as it is compared."""

    strategy: Strategy
    seeded: bool | None
    """With or without the expert's seeds; None: as in a study."""

    @classmethod
    def named(cls, name: str) -> Contender:
        """`gp`; `gp-seeds` leaves the expert's seeds out, `auto+seeds` begins with them. Raises KeyError."""
        for suffix, seeded in (("+seeds", True), ("-seeds", False)):
            if name.endswith(suffix):
                return cls(STRATEGIES[name.removesuffix(suffix)], seeded)
        return cls(STRATEGIES[name], None)


def run_search(bench: Bench, name: str, *, seed: int, budget_s: float) -> list[Step]:
    """Of the contender of that name: trials until `budget_s` of trial seconds are spent or the table is used up. The
    last may end past the budget.
    """
    spent_s = 0.0

    def advance(seconds: float) -> None:
        nonlocal spent_s
        spent_s += seconds

    backend = ReplayBackend(bench.table, advance, seed)
    strategy, seeded = Contender.named(name)
    context = StrategyContext(
        space=bench.space,
        facts=bench.table.facts,
        seed=seed,
        seconds_left=lambda: budget_s - spent_s,
    )
    sampler = sampler_of(strategy, context, seeded=seeded)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    steps: list[Step] = []
    records: list[TrialRecord] = []
    while spent_s < budget_s and len(steps) < bench.space.size:
        began_s = time.perf_counter()
        try:
            trial, config = ask(study, sampler, bench.space)
        except OnlyRisksLeft:
            break
        ask_s = time.perf_counter() - began_s
        request = TrialRequest(
            config=config, seed=seed, time_limit_s=bench.table.trial_s, hopeless_below=_floor(bench, records)
        )
        result = backend.run(request, deadline_s=_deadline_s(bench, steps, config))
        record = record_of(len(steps), result, bench.table.facts, spent_s)
        broken = violations(record, bench.constraints)
        worst = min(map(samples_per_s, filter(bench.meets_constraints, records)), default=None)
        tell(study, trial, record.result, learning=strategy.learns_failures_as, worst=worst, violations=broken)
        if is_ok(record):
            records.append(record)
        steps.append(
            Step(
                config=config,
                status=record.result.status,
                ended_at_s=spent_s,
                samples_per_s=samples_per_s(record) if is_ok(record) and bench.meets_constraints(record) else None,
                ask_s=ask_s,
            )
        )
    return steps


def _deadline_s(bench: Bench, steps: Sequence[Step], config: TrainConfig) -> float:
    """As in a study: when a trial is killed, by how long the baseline took, the first one."""
    if not steps:
        return math.inf
    return patience_s(bench.table.trial_s, baseline_wall_s=steps[0].ended_at_s, compiles=config.compile != "none")


def _floor(bench: Bench, records: list[TrialRecord]) -> float | None:
    """As in a study: what a trial must reach to go on."""
    fastest = max(filter(bench.meets_constraints, records), key=samples_per_s, default=None)
    return hopeless_below(fastest, restart_spread(records)) if fastest else None


def record_of(number: int, result: TrialResult, facts: Facts, spent_s: float) -> TrialRecord:
    """A trial's record, as a study would keep it."""
    return TrialRecord.model_construct(
        number=number,
        purpose=Purpose.SEARCH,
        round=None,
        optuna_trial=number,
        elapsed_s=spent_s,
        cut_short=False,
        started="",
        result=result,
        environment=facts,
    )
