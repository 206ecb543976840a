"""One search against a table: a strategy asked and told as in a study, at the recorded costs, on a clock of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import optuna

from autotune.config import TrainConfig
from autotune.execution.replay import ReplayBackend
from autotune.records import Facts, Purpose, Table, TrialRecord, TrialRequest, TrialResult, TrialStatus
from autotune.search import Space
from autotune.search.figures import has_figure, samples_per_s
from autotune.search.racing import hopeless_below, restart_spread
from autotune.search.strategies import STRATEGIES, StrategyContext
from autotune.search.telling import ask, sampler_of, tell
from autotune.stats import throughput, undisturbed


@dataclass(frozen=True, kw_only=True)
class Step:
    """One trial of a replayed search."""

    config: TrainConfig
    status: TrialStatus
    ended_at_s: float
    """Trial seconds since the search began, those of earlier trials included."""
    samples_per_s: float | None


@dataclass(frozen=True)
class Bench:
    """A table with the space that it covers, and what every configuration of it truly is worth."""

    table: Table
    space: Space
    truth: Mapping[TrainConfig, float]
    """Samples per second over all recorded runs; configurations that fail are not in it."""

    @property
    def best(self) -> float:
        return max(self.truth.values())


def run_search(bench: Bench, strategy_name: str, *, seed: int, budget_s: float) -> list[Step]:
    """Trials until `budget_s` of trial seconds are spent or the table is used up. The last may end past the budget."""
    spent_s = 0.0

    def advance(seconds: float) -> None:
        nonlocal spent_s
        spent_s += seconds

    backend = ReplayBackend(bench.table, advance, seed)
    strategy = STRATEGIES[strategy_name]
    context = StrategyContext(
        space=bench.space,
        facts=bench.table.facts,
        seed=seed,
        seconds_left=lambda: budget_s - spent_s,
    )
    sampler = sampler_of(strategy, context)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    steps: list[Step] = []
    records: list[TrialRecord] = []
    while spent_s < budget_s and len(steps) < len(bench.table.by_config()):
        trial, config = ask(study, sampler, bench.space)
        request = TrialRequest(
            config=config, seed=seed, time_limit_s=bench.table.trial_s, hopeless_below=_floor(records)
        )
        result = backend.run(request, deadline_s=float("inf"))
        worst = min((samples_per_s(record) for record in records), default=0.0)
        tell(study, trial, result, learning=strategy.learns_failures_as, worst=worst)
        if has_figure(result):
            records.append(_record(len(records), result, bench.table.facts, spent_s))
        speed = throughput(undisturbed(result.blocks)) if has_figure(result) else None
        steps.append(Step(config=config, status=result.status, ended_at_s=spent_s, samples_per_s=speed))
    return steps


def _floor(records: list[TrialRecord]) -> float | None:
    """As in a study: what a trial must reach to go on."""
    fastest = max(records, key=samples_per_s, default=None)
    return hopeless_below(fastest, restart_spread(records)) if fastest else None


def _record(number: int, result: TrialResult, facts: Facts, spent_s: float) -> TrialRecord:
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
