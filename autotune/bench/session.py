"""One search on a table: a strategy is asked and told as in a study, at the recorded costs, on a virtual clock, with
one worker or several."""

from __future__ import annotations

import heapq
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import optuna
from optuna.trial import TrialState

from autotune.config import TrainConfig
from autotune.execution.replay import ReplayBackend
from autotune.records import Facts, Purpose, Table, TrialRecord, TrialRequest, TrialResult, TrialStatus
from autotune.search import Space
from autotune.search.budget import patience_s
from autotune.search.figures import is_ok, samples_per_s
from autotune.search.gates import violations
from autotune.search.racing import hopeless_below, restart_spread
from autotune.search.strategies import STRATEGIES, Strategy, StrategyContext
from autotune.search.telling import NothingWorthTrying, ask, sampler_of, tell
from autotune.spec import Constraint

FINALISTS = 3
"""A study confirms the three fastest configurations, and its result is the best of them: this is what a search has
found."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One trial of a replayed search."""

    config: TrainConfig
    status: TrialStatus
    ended_at_s: float
    """Seconds since the search began, at the recorded costs."""
    samples_per_s: float | None
    """None if it has no measurement, or one that breaks a constraint."""
    ask_s: float = field(compare=False)
    """Real seconds for choosing the configuration."""
    tell_s: float = field(default=0.0, compare=False)
    """Real seconds for telling the strategy."""


@dataclass(frozen=True)
class Bench:
    """A table with the space that it covers, and the true throughput of each of its configurations."""

    table: Table
    space: Space
    truth: Mapping[TrainConfig, float]
    """Samples per second over all recorded runs; configurations that fail, or break a constraint, are not in it."""
    constraints: Sequence[Constraint] = ()
    """Constraints on measures."""

    @cached_property
    def best_config(self) -> TrainConfig:
        return max(self.truth, key=lambda config: self.truth[config])

    def worth(self, config: TrainConfig) -> float:
        """Samples per second; 0 for a configuration that cannot be a result."""
        return self.truth.get(config, 0.0)

    def meets_constraints(self, record: TrialRecord) -> bool:
        return max(violations(record, self.constraints), default=0.0) <= 0

    @property
    def best(self) -> float:
        return self.truth[self.best_config]


class Contender(NamedTuple):
    """A strategy in a comparison."""

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


@dataclass(frozen=True, kw_only=True)
class Crew:
    """The workers that run the trials of one search at the same time."""

    workers: int = 1
    failures: float = 0.0
    """Probability that a worker dies during a trial. The trial is lost, its configuration may be proposed again, and
    another worker replaces it at once."""
    stragglers: float = 0.0
    """Probability that a trial takes `STRAGGLING` times as long, with the same measurements, because of a slow disk or
    a busy network."""


ALONE = Crew()
STRAGGLING = 3.0


@dataclass(order=True)
class _Running:
    """A trial whose end is known, as always in a replay, but has not been told to the strategy yet."""

    ends_at_s: float
    number: int
    trial: optuna.Trial = field(compare=False)
    result: TrialResult | None = field(compare=False)
    """None: its worker dies."""
    ask_s: float = field(compare=False)


def run_search(bench: Bench, name: str, *, seed: int, budget_s: float, crew: Crew = ALONE) -> list[Step]:
    """Run the strategy called `name`: trials until `budget_s` are spent or the table is used up, in the order in which
    they ended. The last may end past the budget.
    """
    return _Session(bench, name, seed=seed, budget_s=budget_s, crew=crew).run()


class _Session:
    """One search: a controller that asks and tells, on a clock that jumps from the end of one trial to the next."""

    def __init__(self, bench: Bench, name: str, *, seed: int, budget_s: float, crew: Crew) -> None:
        self._bench = bench
        self._budget_s = budget_s
        self._crew = crew
        self._seed = seed
        self._now_s = 0.0
        self._backend = ReplayBackend(bench.table, lambda _seconds: None, seed)
        self._luck = random.Random(f"crew {seed}")
        strategy, seeded = Contender.named(name)
        context = StrategyContext(
            space=bench.space,
            facts=bench.table.facts,
            seed=seed,
            seconds_left=lambda: budget_s - self._now_s,
        )
        self._learning = strategy.learns_failures_as
        self._sampler = sampler_of(strategy, context, seeded=seeded)
        self._study = optuna.create_study(sampler=self._sampler, direction="maximize")
        self._records: list[TrialRecord] = []
        self._steps: list[Step] = []
        self._running: list[_Running] = []
        self._nothing_worth_trying = False

    def run(self) -> list[Step]:
        while True:
            while self._may_ask():
                self._start()
            if not self._running:
                return self._steps
            self._end(heapq.heappop(self._running))

    def _may_ask(self) -> bool:
        # Everything is compared with the baseline, which runs first and alone, as in a study.
        workers = self._crew.workers if self._steps else 1
        return (
            not self._nothing_worth_trying
            and len(self._running) < workers
            and self._now_s < self._budget_s
            and len(self._steps) + len(self._running) < self._bench.space.size
        )

    def _start(self) -> None:
        began_s = time.perf_counter()
        try:
            trial, config = ask(self._study, self._sampler, self._bench.space)
        except NothingWorthTrying:
            self._nothing_worth_trying = True
            return
        ask_s = time.perf_counter() - began_s
        floor = _floor(self._bench, self._records)
        request = TrialRequest(
            config=config, seed=self._seed, time_limit_s=self._bench.table.trial_s, hopeless_below=floor
        )
        result = self._backend.run(request, deadline_s=_deadline_s(self._bench, self._steps, config))
        straggles, dies, share = (self._luck.random() for _ in range(3))
        wall_s = result.wall_s * (STRAGGLING if straggles < self._crew.stragglers else 1.0)
        lost = dies < self._crew.failures
        running = _Running(
            ends_at_s=self._now_s + (share * wall_s if lost else wall_s),
            number=trial.number,
            trial=trial,
            result=None if lost else result,
            ask_s=ask_s,
        )
        heapq.heappush(self._running, running)

    def _end(self, ended: _Running) -> None:
        self._now_s = ended.ends_at_s
        if ended.result is None:
            self._study.tell(ended.trial, state=TrialState.FAIL)  # says nothing about its configuration
            return
        began_s = time.perf_counter()
        bench, record = self._bench, record_of(ended.number, ended.result, self._bench.table.facts, self._now_s)
        eligible = filter(bench.meets_constraints, self._records)
        tell(
            self._study,
            ended.trial,
            ended.result,
            learning=self._learning,
            worst=min(map(samples_per_s, eligible), default=None),
            violations=violations(record, bench.constraints),
        )
        if is_ok(record):
            self._records.append(record)
        self._steps.append(
            Step(
                config=ended.result.config,
                status=ended.result.status,
                ended_at_s=self._now_s,
                samples_per_s=samples_per_s(record) if is_ok(record) and bench.meets_constraints(record) else None,
                ask_s=ended.ask_s,
                tell_s=time.perf_counter() - began_s,
            )
        )


def _deadline_s(bench: Bench, steps: Sequence[Step], config: TrainConfig) -> float:
    """As in a study: the time after which a trial is killed, from the duration of the first trial, the baseline's."""
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
