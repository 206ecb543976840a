"""A duel: two ways to train in alternating fresh processes, outside of any search."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from datetime import UTC, datetime

from autotune.config import TrainConfig
from autotune.execution import Backend
from autotune.records import Facts, Purpose, TrialRecord
from autotune.search.budget import Clock
from autotune.search.figures import confirming_request, is_ok, samples_per_s
from autotune.stats import Comparison, Estimate, Interval, Outcome, Rounds
from autotune.store import StudyFolder

_PLANNED_ROUNDS = 16
_FEWEST_ROUNDS = 3
"""To end on an answer that seems clear."""
_MOST_ROUNDS = 100
_SHORTEST_RUN_S, _LONGEST_RUN_S = 0.8, 20.0
_NARROW = 0.02
"""Half the width of the interval, relative: enough to see whether a promise is kept."""

Measure = Callable[[int, float, float], float]
"""One fresh process: (seed, seconds to train, seconds until it is killed) → samples per second. Raises DoesNotRun."""


class DoesNotRun(Exception):
    """A run has no measurement; the message says which, and why."""


class Trials:
    """Trials of configurations, kept in the study's `trials/`."""

    def __init__(self, folder: StudyFolder, backend: Backend, facts: Facts) -> None:
        self._folder = folder
        self._backend = backend
        self._facts = facts
        records = folder.read_trials()
        self._next_number = max((record.number for record in records), default=-1) + 1
        self._elapsed_s = max((record.elapsed_s for record in records), default=0.0)

    def of(self, config: TrainConfig, name: str) -> Measure:
        """`name`: as the user knows the configuration, for when it does not run."""

        def measure(seed: int, limit_s: float, deadline_s: float) -> float:
            record = self._run(config, seed, limit_s, deadline_s)
            if is_ok(record):
                return samples_per_s(record)
            reason = record.result.failure.reason if record.result.failure else "no timed block"
            raise DoesNotRun(f"{name} no longer runs here ({record.result.status}): {reason}")

        return measure

    def _run(self, config: TrainConfig, seed: int, limit_s: float, deadline_s: float) -> TrialRecord:
        request = confirming_request(config, seed, limit_s)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        record = TrialRecord(
            number=self._next_number,
            purpose=Purpose.VERIFY,
            elapsed_s=self._elapsed_s,
            started=started,
            result=self._backend.run(request, deadline_s=deadline_s, on_event=lambda _event: None),
            environment=self._facts,
        )
        self._folder.write_trial(record)
        self._next_number += 1
        return record


class Duel:
    """Rounds of `ours` against `theirs`, or of it alone where that is None."""

    def __init__(self, ours: Measure, theirs: Measure | None, *, clock: Clock, ends_s: float) -> None:
        """`ends_s`: when the last run has to be over, on `clock`."""
        self._sides = [ours] if theirs is None else [ours, theirs]
        self._clock = clock
        self._ends_s = ends_s
        self._rounds: list[list[float]] = []
        """ln(samples per second) of each side."""
        self.failure: str | None = None
        """Why one of the two does not run."""

    def run(self, seed: int, on_round: Callable[[], None]) -> None:
        """Rounds in random order until the answer is clear or the time is over. A round that does not get to its end
        counts for nothing."""
        share_s = (self._ends_s - self._clock()) / (_PLANNED_ROUNDS * len(self._sides))
        limit_s = min(max(share_s, _SHORTEST_RUN_S), _LONGEST_RUN_S)
        shuffle, longest_s = random.Random(seed), 0.0
        while self.rounds < _MOST_ROUNDS and not self._is_clear():
            began_s = self._clock()
            if began_s + longest_s >= self._ends_s:
                return
            log_rates = self._round(shuffle, seed + 1 + self.rounds, limit_s)
            if log_rates is None:
                return
            self._rounds.append(log_rates)
            longest_s = max(longest_s, self._clock() - began_s)
            on_round()

    @property
    def rounds(self) -> int:
        return len(self._rounds)

    def comparison(self) -> Comparison | None:
        """`ours` over `theirs`; None before the first round."""
        if len(self._sides) == 1 and self._rounds:
            return Comparison(ratio=Estimate(1.0, Interval(1.0, 1.0)), outcome=Outcome.TIE, pairs=self.rounds)
        return Rounds(self._rounds).compare(0, 1) if self._rounds else None

    def samples_per_s(self) -> Estimate | None:
        """Throughput of `ours`; None before the first round."""
        return Rounds(self._rounds).throughput(0) if self._rounds else None

    def _round(self, shuffle: random.Random, seed: int, limit_s: float) -> list[float] | None:
        """None when a side failed, or when there is no time for all."""
        log_rates = [0.0] * len(self._sides)
        for side in shuffle.sample(range(len(self._sides)), len(self._sides)):
            deadline_s = self._ends_s - self._clock()
            if deadline_s <= 0:
                return None
            try:
                log_rates[side] = math.log(self._sides[side](seed, limit_s, deadline_s))
            except DoesNotRun as error:
                if self._clock() < self._ends_s:  # else it was only killed for the time
                    self.failure = str(error)
                return None
        return log_rates

    def _is_clear(self) -> bool:
        comparison = self.comparison() if len(self._sides) > 1 else None
        estimate = comparison.ratio if comparison else self.samples_per_s()
        if self.rounds < _FEWEST_ROUNDS or estimate is None or estimate.interval is None:
            return False
        return estimate.interval.is_within(_NARROW)
