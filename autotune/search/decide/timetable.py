"""How the confirmation's time is divided among its rounds, the stability tests and the soak."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import cached_property

from autotune.config import TrainConfig
from autotune.records import Purpose
from autotune.search.decide.study import StudySoFar
from autotune.search.decide.watched import Watched
from autotune.search.policy import (
    DUEL_ROUNDS,
    FEWEST_DUELS,
    FULL_ROUNDS,
    KEPT_FOR_SOAK_S,
    MOST_FOR_SOAK,
    OF_FIXED_COST,
    SHORTEST_RUN_S,
    SPARE,
)
from autotune.stats import FEWEST_ROUNDS

_HALVINGS = 10


class Timetable:
    """How long things will take, and how much time there is for them."""

    def __init__(self, study: StudySoFar) -> None:
        self._study = study
        self._costs = study.costs
        self._budget = study.budget
        self._baseline = study.baseline

    def needed_s(self, finalists: Sequence[TrainConfig]) -> float:
        """Seconds that the planned rounds, the stability tests and the soak would take."""
        duels_s = self._costs.rounds_s([self._baseline, *finalists[:1]], DUEL_ROUNDS)
        rounds_s = self._costs.rounds_s([self._baseline, *finalists], FULL_ROUNDS)
        return rounds_s + duels_s + self.tests_s(finalists[:1]) + self._soak_s(finalists[:1])

    def for_rounds_s(self, finalists: Sequence[TrainConfig], done: int, *, to_soak: Sequence[TrainConfig]) -> float:
        """Seconds that rounds may take from now on, with `done` of them run: all but what the tests of the best
        finalist and the slowest soak need, as far as they leave time for the rounds that come first."""
        left_s = self._budget.remaining_s
        first = [self._baseline, *finalists[:1]]
        first_s = self._costs.rounds_s(first, max(FEWEST_ROUNDS - done, 0))
        soak_s, tests_s = self._soak_s(to_soak), self.tests_s(finalists[:1])
        if done < FEWEST_ROUNDS and (soak_s > MOST_FOR_SOAK * left_s or left_s - soak_s < first_s):
            return left_s
        return left_s - soak_s - (tests_s if left_s - soak_s - tests_s >= first_s else 0.0)

    def tests_s(self, finalists: Sequence[TrainConfig]) -> float:
        """Seconds of the stability tests of the finalist whose tests take longest."""
        return max(map(Watched(self._study).cost_s, finalists), default=0.0)

    def tests_and_soak_s(self, config: TrainConfig) -> float:
        return self.tests_s([config]) + self._soak_s([config])

    def _soak_s(self, finalists: Sequence[TrainConfig]) -> float:
        steps = self._study.spec.stability.soak_steps
        if not steps or not finalists:
            return 0.0
        return max(KEPT_FOR_SOAK_S, *(self._costs.soak_s(config, steps) for config in finalists))

    def round_s(self, configs: Sequence[TrainConfig], limit_s: float, given_s: float) -> float:
        """What a round will take: as long as each run usually took, or as the search's trials tell.

        `limit_s`: training seconds of its runs; `given_s`: of those of the round before."""
        longer_s = max(limit_s - given_s, 0.0)
        return SPARE * sum(
            statistics.median(self._walls_s[config]) + longer_s
            if config in self._walls_s
            else self._costs.run_s(config, limit_s)
            for config in configs
        )

    @cached_property
    def _walls_s(self) -> dict[TrainConfig, list[float]]:
        walls_s: dict[TrainConfig, list[float]] = {}
        for record in self._study.of_purpose(Purpose.CONFIRM):
            walls_s.setdefault(record.result.config, []).append(record.result.wall_s)
        return walls_s

    def run_limit_s(
        self, finalists: Sequence[TrainConfig], done: int, best_s: float, *, to_soak: Sequence[TrainConfig]
    ) -> float:
        """Training seconds of one run of the next round: `best_s`, or less, so that the planned rounds fit; not much
        less than what a run costs in any case."""
        full, duel = [self._baseline, *finalists], [self._baseline, *finalists[:1]]
        rounds, duels = max(FULL_ROUNDS - done, 0), max(min(DUEL_ROUNDS, FULL_ROUNDS + DUEL_ROUNDS - done), 1)
        seconds = self.for_rounds_s(finalists, done, to_soak=to_soak)

        def fits(limit_s: float) -> bool:
            return self._costs.rounds_s(full, rounds, limit_s) + self._costs.rounds_s(duel, duels, limit_s) <= seconds

        least_s = OF_FIXED_COST * self._costs.fixed_s(duel)
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
