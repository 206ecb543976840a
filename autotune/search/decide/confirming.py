"""Where the confirmation stands: the finalists, what their rounds have shown, and which of them leads.

The search reports the luckiest of many noisy measurements; only figures from the rounds are emitted. Every round
measures each configuration once, in random order, so that a drift of the machine hits all alike; all runs together say
how much runs differ (`autotune.stats.rounds`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from autotune.config import TrainConfig
from autotune.records import Check, TrialResult
from autotune.search.decide.checks import checks_of, constraint_checks
from autotune.search.decide.finalists import Finalists
from autotune.search.decide.measured_rounds import MeasuredRounds
from autotune.search.decide.study import StudySoFar
from autotune.search.decide.timetable import Timetable
from autotune.search.decide.watched import Watched
from autotune.search.earning import (
    Compare,
    Gain,
    better_known,
    extent,
    is_as_good,
    is_part,
    settings,
    simplest_as_good,
    strengths,
    together,
)
from autotune.search.policy import EVEN, FEWEST_STEPS, MUCH_SLOWER, SHORTEST_RUN_S
from autotune.stats import FEWEST_ROUNDS, TIE, WORTHWHILE, Comparison, Outcome


@dataclass(frozen=True, kw_only=True)
class Confirming:
    """The confirmation at one moment."""

    study: StudySoFar
    finalists: Finalists
    expected: Compare
    """What the search's trials let expect of any two configurations."""

    def with_finalists(self, finalists: Finalists) -> Confirming:
        return dataclasses.replace(self, finalists=finalists)

    @property
    def baseline(self) -> TrainConfig:
        return self.study.baseline

    @cached_property
    def measured(self) -> MeasuredRounds:
        return MeasuredRounds(self.study, self.finalists.ever)

    @cached_property
    def timetable(self) -> Timetable:
        return Timetable(self.study)

    @cached_property
    def passing(self) -> list[TrainConfig]:
        """The finalists that ran beside the baseline and that no gate refuses."""
        return [config for config in self.finalists.now if self.rounds(config) and self._passes(config)]

    @cached_property
    def leader(self) -> TrainConfig | None:
        """The best finalist that passes the gates: the fastest by all that is known, each compared with each other in
        the rounds that both ran in, for those that dropped out met other rounds. But what is as good as the fastest
        goes to the smaller change from the baseline, then to more rounds, then to less memory; and of that one the
        simplest part that is as good. None when none is left."""
        return self._best_of(self.passing)

    @cached_property
    def tested_leader(self) -> TrainConfig | None:
        """The best of those that have passed the stability tests."""
        return self._best_of([config for config in self.passing if self.is_tested(config)])

    @cached_property
    def baseline_may_stand(self) -> bool:
        """Whether the baseline meets the spec's constraints. If not, the best configuration that does is emitted,
        faster or not."""
        return all(check.holds for check in self.constraint_checks(self.baseline))

    @cached_property
    def done(self) -> int:
        """Number of rounds that the leader and the baseline have completed."""
        return self.rounds(self.leader) if self.leader else 0

    @cached_property
    def for_rounds_s(self) -> float:
        """Seconds that further rounds may take."""
        return self.study.budget.remaining_s if self.needs_all_time else self._beside_tests_s

    @cached_property
    def needs_all_time(self) -> bool:
        """Whether the next round takes what is kept for the tests and the soak: it has no other time, and as long as
        nobody knows whether the leader is faster than the baseline, they would tell nothing."""
        first = self.leader or next(iter(self.finalists.now), None)
        if first is None or not self._is_open(first):
            return False
        return self._beside_tests_s < self.timetable.round_s([self.baseline, first], SHORTEST_RUN_S, SHORTEST_RUN_S)

    def _is_open(self, first: TrainConfig) -> bool:
        if self.rounds(first) < FEWEST_ROUNDS:
            return True
        return not self.is_worthwhile(first) and self._seems_worthwhile(first)

    @cached_property
    def _beside_tests_s(self) -> float:
        return self.timetable.for_rounds_s(self.finalists.now, self.done, to_soak=self._to_soak)

    @cached_property
    def run_limit_s(self) -> float:
        """Training seconds of one run: the length that tells the most in a given time, if the planned rounds fit. A
        baseline that is much slower need not be known well."""
        finalists = self.finalists.now
        best_s = self.measured.best_run_s(finalists if self.baseline_is_much_slower else [self.baseline, *finalists])
        return self.timetable.run_limit_s(finalists, self.done, best_s, to_soak=self._to_soak)

    @cached_property
    def baseline_is_much_slower(self) -> bool:
        """Whether the baseline is surely much slower, by what the search's trials predict."""
        best = next(iter(self.finalists.now), None)
        interval = self.expected(best, self.baseline).interval if best else None
        return interval is not None and interval.low > MUCH_SLOWER

    def seconds_of(self, config: TrainConfig, limit_s: float) -> float:
        """Training seconds of a run of `config` in a round with runs of `limit_s`. A baseline that is much slower runs
        only its minimum of steps, if they take longer."""
        is_slow = config == self.baseline and self.baseline_is_much_slower
        takes_longer = FEWEST_STEPS * self.study.costs.step_s(config) >= limit_s
        return min(limit_s, SHORTEST_RUN_S) if is_slow and takes_longer else limit_s

    def is_tested(self, config: TrainConfig) -> bool:
        return Watched(self.study).is_tested(config)

    def is_worthwhile(self, config: TrainConfig) -> bool:
        """Whether it is clearly faster than the baseline, or the baseline may not be emitted. Needs one round."""
        return self.speedup(config).outcome is Outcome.FASTER or not self.baseline_may_stand

    def checks(self, config: TrainConfig) -> list[Check]:
        """The gates, applied to the runs so far. Those of the baseline ask whether the training itself is sound."""
        return checks_of(self.study, config, self.runs(config), self.runs(self.baseline))

    def constraint_checks(self, config: TrainConfig) -> list[Check]:
        return constraint_checks(self.study, config, self.runs(config))

    def runs(self, config: TrainConfig) -> dict[int, TrialResult]:
        """Round → run, for the runs that produced a measurement."""
        return {number: run.result for number, run in self.measured.runs(config).items()}

    def rounds(self, config: TrainConfig) -> int:
        """The rounds that measured both `config` and the baseline."""
        return len(self.measured.common(config, self.baseline))

    def speedup(self, config: TrainConfig) -> Comparison:
        """The speed-up over the baseline. Needs one common round."""
        return self.measured.compare(config, self.baseline)

    def gain(self, one: TrainConfig, other: TrainConfig) -> Gain:
        """The gain by the rounds, and by the model as far as the rounds leave it open. If no round tells, the gain by
        the search trials alone if that is known better; the model has learned from them, so both together say no more.
        """
        measured, expected = self.measured.gain(one, other), self.expected(one, other)
        if measured:
            return together(measured, expected)
        return better_known(self.measured.gain_in_search(one, other), expected)

    def settings(self, config: TrainConfig) -> Sequence[Mapping[str, Any]]:
        """What each setting of `config` gains, and what the settings of other finalists gain, for `best.yaml`."""
        richer = [other for other in self.finalists.ever if is_part(config, other, self.baseline)]
        return [setting.to_dict() for setting in settings(config, richer, self.study.space, self.gain)]

    def without_if_unstable(self, tested: TrainConfig) -> Finalists:
        """The finalists, without `tested` if its tests refused it."""
        refusing = [check for check in self.checks(tested) if not check.holds]
        return self.finalists.refusing(self.study, tested, refusing) if refusing else self.finalists

    @cached_property
    def _to_soak(self) -> Sequence[TrainConfig]:
        """Every configuration that may be confirmed: the finalists, and the baseline until one seems to be faster. From
        then on rounds tell more: a baseline that is kept beside it is unconfirmed, however its soak ends."""
        is_out = self.baseline_is_much_slower or (self.leader is not None and self._seems_worthwhile(self.leader))
        return self.finalists.now if is_out and self.finalists.now else [self.baseline, *self.finalists.now]

    def _seems_worthwhile(self, config: TrainConfig) -> bool:
        return self.is_worthwhile(config) or self.speedup(config).ratio.value > WORTHWHILE

    def _passes(self, config: TrainConfig) -> bool:
        return all(check.holds for check in self.checks(config))

    def _best_of(self, passing: Sequence[TrainConfig]) -> TrainConfig | None:
        if not passing:
            return None
        strength = strengths(passing, self.gain)
        tie = max(strength.values()) - math.log(TIE)

        def preference(config: TrainConfig) -> tuple[Any, ...]:
            tied = strength[config] > tie
            memory = max((run.memory.peak_bytes for run in self.runs(config).values() if run.memory), default=0)
            first = extent(config, self.baseline) if tied else (-strength[config],)
            return (not tied, *first, -self.rounds(config), memory)

        return simplest_as_good(min(passing, key=preference), passing, self.baseline, self._is_as_good)

    def _is_as_good(self, rich: TrainConfig, simple: TrainConfig) -> bool:
        """Whether a simpler configuration is as good. A setting has to show its gain: what a lucky leader seems to gain
        is no reason to keep it. Not if runs differ so much that a gain of a tenth might be luck."""
        likely = self.measured.gain(rich, simple, likely=True) if self.measured.spread <= EVEN else None
        known = together(likely, self.expected(rich, simple), at_best=TIE - 1) if likely else self.gain(rich, simple)
        return is_as_good(self.measured.gain(rich, simple), known)


def begin_confirming(study: StudySoFar, expected: Compare) -> Finalists:
    """The finalists, without those that an earlier session tested and refused."""
    finalists, watched = Finalists.of(study), Watched(study)
    for config in finalists.now:
        if watched.needs_reference(config) and watched.is_tested(config):
            confirming = Confirming(study=study, finalists=finalists, expected=expected)
            finalists = confirming.without_if_unstable(config)
    return finalists
