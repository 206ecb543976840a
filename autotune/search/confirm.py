"""The confirming share of the budget: the finalists and the baseline again, alternating, in fresh processes.

The search reports the luckiest of many noisy measurements; only figures from here are emitted. Every round measures
each configuration once, in random order, so that a drift of the machine hits all alike.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from autotune.config import TrainConfig
from autotune.records import Phase, Purpose, TrialRecord, TrialRequest, TrialResult
from autotune.search.budget import Budget
from autotune.search.costs import SHORTEST_RUN_S, SPARE, Costs
from autotune.search.figures import is_ok, samples_per_s
from autotune.search.ledger import Ledger
from autotune.search.runner import TrialRunner
from autotune.stats import Estimate, RoundTable

FINALISTS = 3
TIE = 0.99
"""Two configurations whose ratio lies above this are as good as equal."""

PLANNED_ROUNDS = 3
_MOST_ROUNDS = 12
_DECIDED_HALF_WIDTH = 0.02
_MOST_FOR_SOAK = 0.5
"""Of what is left: a soak that would take more goes without its reserve, and the verdict may end unconfirmed."""


def choose_finalists(measured: Sequence[TrialRecord], baseline: TrainConfig) -> list[TrainConfig]:
    """The three fastest; one of them at the baseline's effective batch size, which cannot fail for learning slower."""
    others = [record.result.config for record in measured if record.result.config != baseline]
    chosen = others[:FINALISTS]
    same_batch = [config for config in others if config.effective_batch_size == baseline.effective_batch_size]
    if same_batch and not any(config in same_batch for config in chosen):
        chosen[-1:] = same_batch[:1]
    return chosen


class Confirmation:
    """Rounds over a fixed set of configurations; those of an earlier session count."""

    def __init__(
        self, *, ledger: Ledger, runner: TrialRunner, budget: Budget, baseline: TrainConfig, seed: int, soak_steps: int
    ) -> None:
        self._ledger = ledger
        self._runner = runner
        self._budget = budget
        self._seed = seed
        self._soak_steps = soak_steps
        self._costs = Costs(ledger)
        self._random = random.Random(seed)
        self.baseline = baseline
        self.configs = [baseline, *choose_finalists(ledger.measured(), baseline)]
        self._comparisons = max(len(self.configs) - 1, 1)

    def run(self) -> None:
        """Rounds until the answer is clear, or only the soak's time is left."""
        self._runner.phase = Phase.CONFIRMING
        soak_s = self._soak_reserve_s()
        if self._costs.rounds_s(self.configs, PLANNED_ROUNDS - 1) > self._budget.remaining_s - soak_s:
            self.configs = self.configs[:2]
        limit_s = self._run_limit_s(soak_s)
        number = max((record.round or 0 for record in self._ledger.of_purpose(Purpose.CONFIRM)), default=0)
        while not self._decided() and self._narrowed_to(self._budget.remaining_s - soak_s, limit_s):
            number += 1
            self._run_round(number, limit_s)

    def runs(self, config: TrainConfig) -> dict[int, TrialResult]:
        """Round → run, for the rounds in which all configurations still in the race came to a figure."""
        per_config = [self._ok_runs(other) for other in self.configs]
        complete = set.intersection(*(set(runs) for runs in per_config))
        return {number: run.result for number, run in self._ok_runs(config).items() if number in complete}

    def table(self) -> RoundTable | None:
        """The throughputs of all complete rounds; None before the first."""
        figures = {config.canonical_json(): self._throughputs(config) for config in self.configs}
        return RoundTable(figures) if figures[self.baseline.canonical_json()] else None

    def speedup(self, config: TrainConfig) -> Estimate:
        """Over the baseline. The interval holds for all finalists at once: the one that is emitted was chosen after the
        fact. Needs a complete round."""
        table = self.table()
        if table is None:
            raise ValueError("no round is complete")
        return table.ratio(config.canonical_json(), self.baseline.canonical_json(), comparisons=self._comparisons)

    def ranking(self) -> list[TrainConfig]:
        """The finalists, best first: by mean throughput, but what is as good as the fastest goes to the smaller change
        from the baseline, then to less memory."""
        table = self.table()
        finalists = [config for config in self.configs if config != self.baseline]
        if table is None or not finalists:
            return finalists
        mean = {config: table.throughput(config.canonical_json()).value for config in finalists}
        fastest = max(mean.values())

        def preference(config: TrainConfig) -> tuple[bool, float, float]:
            tied = mean[config] >= TIE * fastest
            changes = len(config.differences(self.baseline))
            memory = max((run.memory.peak_bytes for run in self.runs(config).values() if run.memory), default=0)
            return (not tied, changes if tied else -mean[config], memory)

        return sorted(finalists, key=preference)

    def _narrowed_to(self, seconds: float, limit_s: float) -> bool:
        """Whether one more round fits; of the leader and the baseline alone, where all would take too long."""
        if self._round_s(limit_s) > seconds and len(self.configs) > 2:
            self.configs = [self.baseline, self.ranking()[0]]
        return self._round_s(limit_s) <= seconds

    def _round_s(self, limit_s: float) -> float:
        """What a round will take: as long as each run took the last time, or as the search's trials tell."""
        walls = {record.result.config: record.result.wall_s for record in self._ledger.of_purpose(Purpose.CONFIRM)}
        return SPARE * sum(walls.get(config) or self._costs.run_s(config, limit_s) for config in self.configs)

    def _run_round(self, number: int, limit_s: float) -> None:
        order = self._random.sample(self.configs, len(self.configs))
        for config in order:
            request = TrialRequest(
                config=config, seed=self._seed + number, time_limit_s=limit_s, min_blocks=4, target_relative_error=0.01
            )
            deadline_s = min(3 * self._costs.run_s(config, limit_s) + 5, self._budget.remaining_s)
            if deadline_s <= 0:
                return
            record = self._runner.run(request, Purpose.CONFIRM, deadline_s=deadline_s, round_number=number)
            if not is_ok(record) and config != self.baseline and self._budget.remaining_s > 0:
                self.configs.remove(config)

    def _decided(self) -> bool:
        table = self.table()
        if table is None or table.rounds < PLANNED_ROUNDS:
            return False
        if table.rounds >= _MOST_ROUNDS:
            return True
        if not self.ranking():
            return True
        interval = self.speedup(self.ranking()[0]).interval
        return interval is not None and interval.high / interval.low - 1 < 2 * _DECIDED_HALF_WIDTH

    def _ok_runs(self, config: TrainConfig) -> dict[int, TrialRecord]:
        runs = self._ledger.of_purpose(Purpose.CONFIRM)
        return {run.round: run for run in runs if run.result.config == config and run.round is not None and is_ok(run)}

    def _throughputs(self, config: TrainConfig) -> list[float]:
        complete = self.runs(config)
        return [samples_per_s(run) for number, run in self._ok_runs(config).items() if number in complete]

    def _run_limit_s(self, soak_s: float) -> float:
        """Training seconds of one run, so that the planned rounds fit."""
        fixed_s = self._costs.rounds_s(self.configs, PLANNED_ROUNDS, limit_s=0.0)
        spare_s = self._budget.remaining_s - soak_s - fixed_s
        share_s = spare_s / (PLANNED_ROUNDS * len(self.configs) * SPARE)
        return min(max(share_s, SHORTEST_RUN_S), 4 * self._budget.trial_s)

    def _soak_reserve_s(self) -> float:
        soak_s = self._costs.soak_s(self.configs[-1], self._soak_steps)
        return soak_s if soak_s < _MOST_FOR_SOAK * self._budget.remaining_s else 0.0


def needed_s(ledger: Ledger, baseline: TrainConfig, soak_steps: int) -> float:
    """Seconds that the planned rounds and the soak would take, with the finalists of this moment."""
    costs = Costs(ledger)
    finalists = choose_finalists(ledger.measured(), baseline)
    soak_s = costs.soak_s(finalists[0], soak_steps) if finalists else 0.0
    return costs.rounds_s([baseline, *finalists], PLANNED_ROUNDS) + soak_s
