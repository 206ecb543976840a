"""A duel: two configurations in alternating fresh processes, outside of any search."""

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
from autotune.stats import FEWEST_PAIRS, Comparison, Estimate, compare, location
from autotune.store import StudyFolder

_PLANNED_ROUNDS = 16
_MOST_ROUNDS = 100
_SHORTEST_RUN_S, _LONGEST_RUN_S = 0.8, 20.0
_NARROW = 0.02
"""Half the width of the interval, relative: enough to see whether a promise is kept."""


class Duel:
    """Rounds of `ours` against `theirs`, or of it alone where the two are the same. Runs are kept in `trials/`."""

    def __init__(
        self,
        ours: TrainConfig,
        theirs: TrainConfig,
        *,
        folder: StudyFolder,
        backend: Backend,
        facts: Facts,
        clock: Clock,
        ends_s: float,
    ) -> None:
        """`ends_s`: when the last run has to be over, on `clock`."""
        self._ours = ours
        self._theirs = theirs
        self._folder = folder
        self._backend = backend
        self._facts = facts
        self._clock = clock
        self._ends_s = ends_s
        records = folder.read_trials()
        self._next_number = max((record.number for record in records), default=-1) + 1
        self._elapsed_s = max((record.elapsed_s for record in records), default=0.0)
        self._log_rates: dict[TrainConfig, list[float]] = {ours: [], theirs: []}
        self.failure: str | None = None
        """Why one of the two does not run."""

    def run(self, seed: int, on_round: Callable[[], None]) -> None:
        """Rounds in random order until the answer is clear or the time is over. A round that does not get to its end
        counts for nothing."""
        sides = list(self._log_rates)
        shuffle = random.Random(self._next_number)
        share_s = (self._ends_s - self._clock()) / (_PLANNED_ROUNDS * len(sides))
        limit_s = min(max(share_s, _SHORTEST_RUN_S), _LONGEST_RUN_S)
        longest_s = 0.0
        while self.rounds < _MOST_ROUNDS and not self._is_clear():
            began_s = self._clock()
            if began_s + longest_s >= self._ends_s:
                return
            rates: dict[TrainConfig, float] = {}
            for config in shuffle.sample(sides, len(sides)):
                rate = self._measure(config, seed + 1 + self.rounds, limit_s)
                if rate is None:
                    return
                rates[config] = math.log(rate)
            for config, log_rate in rates.items():
                self._log_rates[config].append(log_rate)
            longest_s = max(longest_s, self._clock() - began_s)
            on_round()

    @property
    def rounds(self) -> int:
        return len(self._log_rates[self._ours])

    def comparison(self) -> Comparison | None:
        """`ours` over `theirs`; None before the first round."""
        pairs = zip(self._log_rates[self._ours], self._log_rates[self._theirs], strict=True)
        return compare([ours - theirs for ours, theirs in pairs]) if self.rounds else None

    def samples_per_s(self) -> Estimate | None:
        """Of `ours`; None before the first round."""
        return location(self._log_rates[self._ours]).exp() if self.rounds else None

    def _measure(self, config: TrainConfig, seed: int, limit_s: float) -> float | None:
        """Samples per second of one run; None when it failed, or when there is no time for it."""
        deadline_s = self._ends_s - self._clock()
        if deadline_s <= 0:
            return None
        request = confirming_request(config, seed, limit_s)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        result = self._backend.run(request, deadline_s=deadline_s, on_event=lambda _event: None)
        record = TrialRecord(
            number=self._next_number,
            purpose=Purpose.VERIFY,
            elapsed_s=self._elapsed_s,
            started=started,
            result=result,
            environment=self._facts,
        )
        self._folder.write_trial(record)
        self._next_number += 1
        if is_ok(record):
            return samples_per_s(record)
        if self._clock() < self._ends_s:
            side = "the emitted configuration" if config == self._ours else "the baseline"
            reason = result.failure.reason if result.failure else "no timed block"
            self.failure = f"{side} does not run here any more ({result.status}): {reason}"
        return None

    def _is_clear(self) -> bool:
        comparison = None if self._ours == self._theirs else self.comparison()
        estimate = comparison.ratio if comparison else self.samples_per_s()
        if self.rounds < FEWEST_PAIRS or estimate is None or estimate.interval is None:
            return False
        return estimate.interval.is_within(_NARROW)
