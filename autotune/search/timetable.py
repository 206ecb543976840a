"""How the time of the confirmation is shared out: between its rounds, the stability tests and the soak."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from autotune.config import TrainConfig
from autotune.records import Purpose
from autotune.search.budget import Budget
from autotune.search.costs import Costs
from autotune.search.ledger import Ledger
from autotune.search.policy import (
    DUEL_ROUNDS,
    FEWEST_DUELS,
    FULL_ROUNDS,
    MOST_FOR_SOAK,
    OF_FIXED_COST,
    SHORTEST_RUN_S,
    SPARE,
)
from autotune.search.stability import Stability
from autotune.stats import FEWEST_ROUNDS

_HALVINGS = 10


class Timetable:
    """Reads costs from the ledger and the time left from the budget, anew each time it is asked."""

    def __init__(
        self, *, ledger: Ledger, budget: Budget, stability: Stability, baseline: TrainConfig, soak_steps: int
    ) -> None:
        self.costs = Costs(ledger)
        self._ledger = ledger
        self._budget = budget
        self._stability = stability
        self._baseline = baseline
        self._soak_steps = soak_steps
        self._given_s = math.inf
        """Training seconds of the runs of the last round; of an earlier session nobody knows."""

    def needed_s(self, finalists: Sequence[TrainConfig]) -> float:
        """Seconds that the planned rounds, the stability tests and the soak would take."""
        duels_s = self.costs.rounds_s([self._baseline, *finalists[:1]], DUEL_ROUNDS)
        rounds_s = self.costs.rounds_s([self._baseline, *finalists], FULL_ROUNDS)
        return rounds_s + duels_s + self.tests_s(finalists[:1]) + self._soak_s(finalists[:1])

    def for_rounds_s(self, finalists: Sequence[TrainConfig], done: int) -> float:
        """Seconds that rounds may take from now on, with `done` of them run: all but what the tests of the best
        finalist and the soak of the slowest need, as far as they leave time for the rounds that come first."""
        left_s = self._budget.remaining_s
        first = [self._baseline, *finalists[:1]]
        first_s = self.costs.rounds_s(first, max(FEWEST_ROUNDS - done, 0))
        soak_s, tests_s = self._soak_s(finalists), self.tests_s(finalists[:1])
        if done < FEWEST_ROUNDS and (soak_s > MOST_FOR_SOAK * left_s or left_s - soak_s < first_s):
            return left_s
        return left_s - soak_s - (tests_s if left_s - soak_s - tests_s >= first_s else 0.0)

    def tests_s(self, finalists: Sequence[TrainConfig]) -> float:
        """Seconds of the stability tests of the one whose tests take the longest."""
        tests = [self.costs.tests_s(config, self._baseline, self._stability) for config in finalists]
        return max(tests, default=0.0)

    def tests_and_soak_s(self, config: TrainConfig) -> float:
        return self.tests_s([config]) + self._soak_s([config])

    def _soak_s(self, finalists: Sequence[TrainConfig]) -> float:
        return max((self.costs.soak_s(config, self._soak_steps) for config in finalists), default=0.0)

    def round_s(self, configs: Sequence[TrainConfig], limit_s: float) -> float:
        """What a round will take: as long as each run usually took, or as the search's trials tell."""
        walls: dict[TrainConfig, list[float]] = {}
        for record in self._ledger.of_purpose(Purpose.CONFIRM):
            walls.setdefault(record.result.config, []).append(record.result.wall_s)
        longer_s = max(limit_s - self._given_s, 0.0)
        return SPARE * sum(
            statistics.median(walls[config]) + longer_s if config in walls else self.costs.run_s(config, limit_s)
            for config in configs
        )

    def run_limit_s(self, finalists: Sequence[TrainConfig], done: int, best_s: float) -> float:
        """Training seconds of one run of the next round: `best_s`, or less, so that the planned rounds fit; not much
        less than what a run costs in any case."""
        full, duel = [self._baseline, *finalists], [self._baseline, *finalists[:1]]
        rounds, duels = max(FULL_ROUNDS - done, 0), max(min(DUEL_ROUNDS, FULL_ROUNDS + DUEL_ROUNDS - done), 1)
        seconds = self.for_rounds_s(finalists, done)

        def fits(limit_s: float) -> bool:
            return self.costs.rounds_s(full, rounds, limit_s) + self.costs.rounds_s(duel, duels, limit_s) <= seconds

        least_s = OF_FIXED_COST * self.costs.fixed_s(duel)
        high_s = min(max(best_s, least_s, SHORTEST_RUN_S), 2 * self._budget.trial_s)
        while duels > FEWEST_DUELS and not fits(min(least_s, high_s)):
            duels -= 1
        if fits(high_s):
            return high_s
        low_s = min(SHORTEST_RUN_S, high_s)
        for _ in range(_HALVINGS):  # a run whose steps are long does not take longer until the limit is longer still
            middle_s = (low_s + high_s) / 2
            low_s, high_s = (middle_s, high_s) if fits(middle_s) else (low_s, middle_s)
        return low_s

    def begin_round(self, limit_s: float) -> None:
        """A round begins, whose runs train for `limit_s`."""
        self._given_s = limit_s
