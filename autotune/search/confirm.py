"""The confirming share of the budget: the finalists and the baseline again, alternating, in fresh processes.

The search reports the luckiest of many noisy measurements; only figures from here are emitted. Every round measures
each configuration once, in random order, so that a drift of the machine hits all alike. After two rounds the leader and
the baseline go on alone: what decides is the number of fresh processes, not their length.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from autotune.config import TrainConfig
from autotune.records import Check, Phase, Purpose, TrialRecord, TrialRequest, TrialResult
from autotune.search.budget import Budget
from autotune.search.costs import SHORTEST_RUN_S, SPARE, Costs
from autotune.search.figures import is_ok, samples_per_s
from autotune.search.ledger import Ledger
from autotune.search.runner import TrialRunner
from autotune.stats import Estimate, RoundTable

FINALISTS = 3
TIE = 1.01
"""Two configurations whose ratio lies below this are as good as equal."""

WORTHWHILE = 1.05
"""A speed-up whose interval reaches this far is not ruled out."""
FEWEST_ROUNDS = 2

_FULL_ROUNDS = 2
_DUEL_ROUNDS = 6
"""Of the leader and the baseline alone, as planned; more where time is left and the interval is still wide."""
_MOST_ROUNDS = 30
_DECIDED_WIDTH = 0.04
"""Of the interval of the speed-up, relative: nobody needs it narrower."""
_MOST_FOR_SOAK = 0.5
"""Of what is left: a soak that would take more goes without its reserve, and the verdict may end unconfirmed."""

Gates = Callable[[dict[int, TrialResult], dict[int, TrialResult]], list[Check]]
"""The stability gates over the runs (round → run) of a configuration and of the baseline."""


def choose_finalists(measured: Sequence[TrialRecord], baseline: TrainConfig) -> list[TrainConfig]:
    """The three fastest; one of them at the baseline's effective batch size, which cannot fail for learning slower."""
    others = [record.result.config for record in measured if record.result.config != baseline]
    chosen = others[:FINALISTS]
    same_batch = [config for config in others if config.effective_batch_size == baseline.effective_batch_size]
    if same_batch and not any(config in same_batch for config in chosen):
        chosen[-1:] = same_batch[:1]
    return chosen


def needed_s(ledger: Ledger, baseline: TrainConfig, soak_steps: int) -> float:
    """Seconds that the planned rounds and the soak would take, with the finalists of this moment."""
    costs = Costs(ledger)
    finalists = choose_finalists(ledger.measured(), baseline)
    soak_s = costs.soak_s(finalists[0], soak_steps) if finalists else 0.0
    duels_s = costs.rounds_s([baseline, *finalists[:1]], _DUEL_ROUNDS)
    return costs.rounds_s([baseline, *finalists], _FULL_ROUNDS) + duels_s + soak_s


class Confirmation:
    """Rounds over the finalists and the baseline; those of an earlier session count."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        runner: TrialRunner,
        budget: Budget,
        gates: Gates,
        baseline: TrainConfig,
        seed: int,
        soak_steps: int,
    ) -> None:
        self._ledger = ledger
        self._runner = runner
        self._budget = budget
        self._gates = gates
        self._seed = seed
        self._soak_steps = soak_steps
        self._costs = Costs(ledger)
        self._random = random.Random(seed)
        self._finalists = choose_finalists(ledger.measured(), baseline)
        self._comparisons = max(len(self._finalists), 1)
        self.baseline = baseline

    def run(self) -> None:
        """Rounds until the answer is clear, or only the soak's time is left."""
        self._runner.phase = Phase.CONFIRMING
        soak_s = self._soak_reserve_s()
        limit_s = self._run_limit_s(soak_s)
        number = max((record.round or 0 for record in self._ledger.of_purpose(Purpose.CONFIRM)), default=0)
        while not self._decided():
            racing = self._racing(self._budget.remaining_s - soak_s, limit_s)
            if not racing:
                return
            number += 1
            self._run_round(number, racing, limit_s)

    def leader(self) -> TrainConfig | None:
        """The best finalist that passes the gates: the fastest by mean throughput, but what is as good as the fastest
        goes to the smaller change from the baseline, then to less memory. None when none is left."""
        passing = [config for config in self._finalists if self.rounds(config) and self._passes(config)]
        gain = {config: self.speedup(config).value for config in passing}

        def preference(config: TrainConfig) -> tuple[bool, float, float]:
            tied = gain[config] * TIE > max(gain.values())
            changes = len(config.differences(self.baseline))
            memory = max((run.memory.peak_bytes for run in self.runs(config).values() if run.memory), default=0)
            return (not tied, changes if tied else -gain[config], memory)

        return min(passing, key=preference, default=None)

    def reject(self, config: TrainConfig) -> None:
        """`config` is out, for a fault that the rounds did not show; the next becomes the leader."""
        self._finalists.remove(config)

    def checks(self, config: TrainConfig) -> list[Check]:
        return self._gates(self.runs(config), self.runs(self.baseline))

    def runs(self, config: TrainConfig) -> dict[int, TrialResult]:
        """Round → run, for the rounds in which both `config` and the baseline came to a figure."""
        common = self._ok_runs(config).keys() & self._ok_runs(self.baseline).keys()
        return {number: run.result for number, run in self._ok_runs(config).items() if number in common}

    def rounds(self, config: TrainConfig) -> int:
        return len(self.runs(config))

    def speedup(self, config: TrainConfig) -> Estimate:
        """Over the baseline. The interval holds for all finalists at once: the one that is emitted was chosen after the
        fact. Needs one common round."""
        return self._table(config).ratio(
            config.canonical_json(), self.baseline.canonical_json(), comparisons=self._comparisons
        )

    def throughput(self, config: TrainConfig) -> Estimate:
        return self._table(config).throughput(config.canonical_json())

    def _table(self, config: TrainConfig) -> RoundTable:
        """Of `config` and the baseline over their common rounds."""
        pair = {config, self.baseline}
        common = sorted(self.runs(config))
        return RoundTable(
            {c.canonical_json(): [samples_per_s(self._ok_runs(c)[number]) for number in common] for c in pair}
        )

    def _passes(self, config: TrainConfig) -> bool:
        return all(check.passed for check in self.checks(config))

    def _racing(self, seconds: float, limit_s: float) -> list[TrainConfig]:
        """Who runs the next round: all, then the leader and the baseline alone; nobody when not even that fits."""
        full = [self.baseline, *self._finalists]
        if self.rounds(self.baseline) < _FULL_ROUNDS and self._round_s(full, limit_s) <= seconds:
            return full
        leader = self.leader() or next(iter(self._finalists), None)
        duel = [self.baseline] if leader is None else [self.baseline, leader]
        return duel if self._round_s(duel, limit_s) <= seconds else []

    def _run_round(self, number: int, racing: Sequence[TrainConfig], limit_s: float) -> None:
        for config in self._random.sample(racing, len(racing)):
            request = TrialRequest(
                config=config, seed=self._seed + number, time_limit_s=limit_s, min_blocks=4, target_relative_error=0.01
            )
            deadline_s = min(3 * self._costs.run_s(config, limit_s) + 5, self._budget.remaining_s)
            if deadline_s <= 0:
                return
            record = self._runner.run(request, Purpose.CONFIRM, deadline_s=deadline_s, round_number=number)
            if not is_ok(record) and config in self._finalists and self._budget.remaining_s > 0:
                self.reject(config)

    def _decided(self) -> bool:
        leader = self.leader() or self.baseline
        if self.rounds(leader) >= _MOST_ROUNDS:
            return True
        if self.rounds(leader) < _FULL_ROUNDS + 1:
            return False
        interval = self.speedup(leader).interval
        return interval is None or interval.high / interval.low - 1 < _DECIDED_WIDTH

    def _ok_runs(self, config: TrainConfig) -> dict[int, TrialRecord]:
        runs = self._ledger.of_purpose(Purpose.CONFIRM)
        return {run.round: run for run in runs if run.result.config == config and run.round is not None and is_ok(run)}

    def _round_s(self, configs: Sequence[TrainConfig], limit_s: float) -> float:
        """What a round will take: as long as each run took the last time, or as the search's trials tell."""
        walls = {record.result.config: record.result.wall_s for record in self._ledger.of_purpose(Purpose.CONFIRM)}
        return SPARE * sum(walls.get(config) or self._costs.run_s(config, limit_s) for config in configs)

    def _run_limit_s(self, soak_s: float) -> float:
        """Training seconds of one run, so that the planned rounds fit."""
        full, duel = [self.baseline, *self._finalists], [self.baseline, *self._finalists[:1]]
        fixed_s = self._costs.rounds_s(full, _FULL_ROUNDS, 0.0) + self._costs.rounds_s(duel, _DUEL_ROUNDS, 0.0)
        runs = _FULL_ROUNDS * len(full) + _DUEL_ROUNDS * len(duel)
        share_s = (self._budget.remaining_s - soak_s - fixed_s) / (runs * SPARE)
        return min(max(share_s, SHORTEST_RUN_S), 2 * self._budget.trial_s)

    def _soak_reserve_s(self) -> float:
        """For the soak of the slowest finalist; nothing where it would leave no time for the rounds that come first."""
        soak_s = max((self._costs.soak_s(config, self._soak_steps) for config in self._finalists), default=0.0)
        rounds_s = self._costs.rounds_s([self.baseline, *self._finalists[:1]], FEWEST_ROUNDS + 1)
        left_s = self._budget.remaining_s
        return soak_s if soak_s < min(_MOST_FOR_SOAK * left_s, left_s - rounds_s) else 0.0
