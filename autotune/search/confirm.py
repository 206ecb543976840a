"""The confirming share of the budget: the finalists and the baseline again, alternating, in fresh processes.

The search reports the luckiest of many noisy measurements; only figures from here are emitted. Every round measures
each configuration once, in random order, so that a drift of the machine hits all alike; all runs together say how much
runs differ (`autotune.stats.rounds`). Finalists drop out as soon as they are very likely not the best; the leader
passes the stability tests early, so that another can take its place in time. Whether few long runs or many short ones
tell more depends on the machine, and is calculated anew after each round from what the runs have shown of it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from autotune.config import TrainConfig
from autotune.records import Check, Phase, Purpose, TrialRecord, TrialResult, TrialStatus
from autotune.search.budget import Budget
from autotune.search.costs import SHORTEST_RUN_S, SPARE, Costs
from autotune.search.earning import (
    Compare,
    Gain,
    is_as_good,
    is_part,
    settings,
    simpler_form,
    simplest_as_good,
    still_simpler,
    together,
)
from autotune.search.figures import confirming_request, is_ok, samples_per_s
from autotune.search.gates import violations
from autotune.search.ledger import Ledger
from autotune.search.measured_rounds import MeasuredRounds
from autotune.search.plain import arithmetic
from autotune.search.runner import TrialRunner
from autotune.search.space import Space
from autotune.search.stability import Stability, blames_precision
from autotune.spec import Constraint
from autotune.stats import FEWEST_ROUNDS, TIE, Comparison, Estimate, Posterior

FINALISTS = 3

_FULL_ROUNDS = 2
_DUEL_ROUNDS = 6
"""Of the leader and the baseline, as planned; more where time is left and the answer is not clear."""
_MOST_ROUNDS = 100
_OUT = 0.9
"""Probability of being slower than the leader with which a finalist drops out: it is replaced by one that is as good or
better."""
_PRECISE = 0.02
"""Half the width of the leader's throughput interval, relative: what is emitted should come true to a few per cent."""
_CLEARLY = 0.05
"""Beyond the limit of a constraint, relative: less may be noise of one short run, and the confirmation decides."""
_MOST_FOR_SOAK = 0.5
"""Of what is left: a soak that would take more goes without its reserve, and the verdict may end unconfirmed."""


def choose_finalists(
    measured: Sequence[TrialRecord], baseline: TrainConfig, constraints: Sequence[Constraint] = ()
) -> list[TrainConfig]:
    """The three fastest; one of them at the baseline's effective batch size, which cannot fail for learning slower.

    None that its search trial has shown to be clearly outside the constraints.
    """
    measured = [record for record in measured if max(violations(record, constraints), default=0.0) <= _CLEARLY]
    others = [record.result.config for record in measured if record.result.config != baseline and not _gave_up(record)]
    if not others:  # let the best of them show that it is slower
        others = [record.result.config for record in measured if record.result.config != baseline][:1]
    chosen = others[:FINALISTS]
    same_batch = [config for config in others if config.effective_batch_size == baseline.effective_batch_size]
    if same_batch and not any(config in same_batch for config in chosen):
        chosen[-1:] = same_batch[:1]
    return chosen


def _gave_up(record: TrialRecord) -> bool:
    return record.result.status is TrialStatus.PRUNED


def needed_s(ledger: Ledger, baseline: TrainConfig, stability: Stability, soak_steps: int) -> float:
    """Seconds that the planned rounds, the stability tests and the soak would take, with the finalists of now."""
    costs = Costs(ledger)
    finalists = choose_finalists(ledger.measured(), baseline, stability.constraints)
    duels_s = costs.rounds_s([baseline, *finalists[:1]], _DUEL_ROUNDS)
    tests_s = costs.tests_s(finalists[0], baseline, stability, soak_steps) if finalists else 0.0
    return costs.rounds_s([baseline, *finalists], _FULL_ROUNDS) + duels_s + tests_s


class Confirmation:
    """Rounds over the finalists and the baseline; those of an earlier session count."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        runner: TrialRunner,
        budget: Budget,
        stability: Stability,
        space: Space,
        expected: Compare,
        seed: int,
        soak_steps: int,
    ) -> None:
        """`expected`: how configurations compare by what the search's trials have shown."""
        self._ledger = ledger
        self._runner = runner
        self._budget = budget
        self._stability = stability
        self._seed = seed
        self._soak_steps = soak_steps
        self._costs = Costs(ledger)
        self._random = random.Random(seed)
        self.baseline = space.baseline
        self._space = space
        self._expected = expected
        self.refused: dict[TrainConfig, list[Check]] = {}
        """Configurations that failed their tests, a constraint or their soak, and the gates that refused them."""
        self._rejected: set[TrainConfig] = set()
        self._finalists = self._chosen(ledger.measured())
        self._been_finalists = set(self._finalists)
        self._measured = MeasuredRounds(ledger, self.baseline, self._been_finalists)
        self._given_s = math.inf
        """Training seconds of the runs of the last round; of an earlier session nobody knows."""

    def run(self) -> None:
        """Rounds until the answer is clear, or only the soak's time is left."""
        for config in list(self._finalists):  # an earlier session may have tested them
            if self._stability.needs_reference(config) and self._stability.is_tested(config):
                self._replace_if_unstable(config)
        soak_s = self._soak_reserve_s()
        number = max((record.round or 0 for record in self._ledger.of_purpose(Purpose.CONFIRM)), default=0)
        while not self._decided():
            self._runner.phase = Phase.CONFIRMING
            limit_s = self._run_limit_s(soak_s)
            racing = self._racing(self._budget.remaining_s - soak_s, limit_s)
            if not racing:
                return
            number += 1
            self._run_round(number, racing, limit_s)
            self._drop_violators()
            self._add_simpler(soak_s)
            self._test_leader(soak_s)

    def leader(self, *, tested: bool = False) -> TrainConfig | None:
        """The best finalist that passes the gates: the fastest by mean throughput, but what is as good as the fastest
        goes to the smaller change from the baseline, then to less memory; and of that one the simplest part that is not
        known to be slower by 1 %. None when none is left.

        `tested`: only of those that have been through the stability tests.
        """
        passing = [
            config
            for config in self._finalists
            if self.rounds(config) and self._passes(config) and (not tested or self._stability.is_tested(config))
        ]
        gain = {config: self.speedup(config).ratio.value for config in passing}
        fastest = max(passing, key=gain.__getitem__, default=self.baseline)

        def preference(config: TrainConfig) -> tuple[bool, float, float]:
            tied = gain[config] * TIE > gain[fastest]
            changes = len(config.differences(self.baseline))
            memory = max((run.memory.peak_bytes for run in self.runs(config).values() if run.memory), default=0)
            return (not tied, changes if tied else -gain[config], memory)

        if not passing:
            return None
        return simplest_as_good(min(passing, key=preference), passing, self.baseline, self._is_as_good)

    def reject(self, config: TrainConfig, refusing: Sequence[Check] = ()) -> None:
        """`config` is out, and the next becomes the leader. `refusing`: the gates that say why, where any do."""
        if refusing:
            self.refused[config] = list(refusing)
        self._rejected.add(config)
        self._finalists.remove(config)

    @property
    def baseline_may_stand(self) -> bool:
        """Whether the baseline meets the spec's own constraints; else the best that does is emitted, faster or not."""
        return all(check.holds for check in self._stability.constraint_checks(self.baseline, self.runs(self.baseline)))

    def checks(self, config: TrainConfig) -> list[Check]:
        """The gates of the runs so far. Those of the baseline ask whether the training is sound as it stands."""
        return self._stability.checks(config, self.runs(config), self.runs(self.baseline))

    def runs(self, config: TrainConfig) -> dict[int, TrialResult]:
        """Round → run, for the rounds in which both `config` and the baseline came to a figure."""
        common = self._measured.common(config, self.baseline)
        return {number: run.result for number, run in self._measured.runs(config).items() if number in common}

    def rounds(self, config: TrainConfig) -> int:
        return len(self.runs(config))

    def speedup(self, config: TrainConfig) -> Comparison:
        """Over the baseline. Needs one common round."""
        return self._measured.compare(config, self.baseline)

    def throughput(self, config: TrainConfig) -> Estimate:
        """Over the rounds. Needs one round."""
        return self._measured.throughput(config)

    def rate(self, config: TrainConfig) -> Posterior:
        """Posterior of ln(samples per second), over the rounds. Needs one round."""
        return self._measured.rate(config)

    def settings(self, config: TrainConfig) -> list[dict[str, Any]]:
        """What each setting of `config` gains, and each that another finalist has beside them, for `best.yaml`."""
        richer = [other for other in self._been_finalists if is_part(config, other, self.baseline)]
        return [setting.to_dict() for setting in settings(config, richer, self._space, self._gain)]

    def _gain(self, one: TrainConfig, other: TrainConfig) -> Gain:
        """By the rounds, and by the model as far as they leave it open."""
        measured, expected = self._measured.gain(one, other), self._expected(one, other)
        return together(measured, expected) if measured else expected

    def _is_as_good(self, rich: TrainConfig, simple: TrainConfig) -> bool:
        return is_as_good(self._measured.gain(rich, simple), self._gain(rich, simple))

    def _chosen(self, measured: Sequence[TrialRecord]) -> list[TrainConfig]:
        """The finalists; the fastest of them also without those of its settings that may do nothing."""
        chosen = choose_finalists(measured, self.baseline, self._stability.constraints)
        tried = {record.result.config: samples_per_s(record) for record in measured}
        simple = simpler_form(chosen[0], tried, self._failed(), self._space, self._expected) if chosen else None
        if simple is None or simple in chosen or self._is_out(simple):
            return chosen
        return [chosen[0], simple, *chosen[1:][-(FINALISTS - 2) :]]

    def _add_simpler(self, soak_s: float) -> None:
        """Another finalist: the leader without settings that are not known to gain 1 %, where there is time for it."""
        leader = self.leader()
        if leader is None or self.rounds(leader) < _FULL_ROUNDS:
            return
        known = {*self._been_finalists, *self._failed(), *self.refused, *self._rejected}
        simple = still_simpler(leader, known, self._space, self._gain)
        if simple is None or self._is_out(simple):
            return
        racing = [self.baseline, *self._contenders(leader), simple]
        rounds_s = (_FULL_ROUNDS + 1) * self._round_s(racing, self._given_s) + self._tests_reserve_s()
        if rounds_s < self._budget.remaining_s - soak_s:
            self._finalists.append(simple)
            self._been_finalists.add(simple)

    def _failed(self) -> set[TrainConfig]:
        """What came to no figure in its trial."""
        return {record.result.config for record in self._ledger.records if not is_ok(record)}

    def _passes(self, config: TrainConfig) -> bool:
        return all(check.holds for check in self.checks(config))

    def _racing(self, seconds: float, limit_s: float) -> list[TrainConfig]:
        """Who runs the next round: the baseline with all that may still be the best; with the leader alone where there
        is no time for as many such rounds as its own speed-up needs; nobody when not even that fits."""
        leader = self.leader() or next(iter(self._finalists), None)
        duel = [self.baseline] if leader is None else [self.baseline, leader]
        full = [self.baseline, *self._contenders(leader)]
        full_s, duel_s = self._round_s(full, limit_s), self._round_s(duel, limit_s)
        done = self.rounds(leader) if leader else 0
        wanted = 1 if done < _FULL_ROUNDS else max(_FULL_ROUNDS + _DUEL_ROUNDS - done, 1)
        if wanted * full_s <= seconds:
            return full
        return duel if duel_s <= seconds else []

    def _contenders(self, leader: TrainConfig | None) -> list[TrainConfig]:
        """The finalists that two rounds have not shown to be slower than the leader."""
        if leader is None or self.rounds(leader) < _FULL_ROUNDS:
            return list(self._finalists)
        return [
            config
            for config in self._finalists
            if config == leader or self._measured.may_be_faster(config, leader, _OUT)
        ]

    def _test_leader(self, soak_s: float) -> None:
        """The stability tests, as soon as there is a leader worth them, and in time to find another."""
        leader = self.leader()
        if leader is None or self.rounds(leader) < _FULL_ROUNDS or self._stability.is_tested(leader):
            return
        tests_s = self._costs.tests_s(leader, self.baseline, self._stability, soak_steps=0)
        is_slow = self.speedup(leader).ratio.value <= TIE and self.baseline_may_stand
        if is_slow or self._budget.remaining_s < tests_s + soak_s:
            return
        self._runner.phase = Phase.TESTING
        self._stability.test(leader)
        self._replace_if_unstable(leader)

    def _replace_if_unstable(self, tested: TrainConfig) -> None:
        """What computes the same as one that failed, or in the same low precision, is no finalist either; the next
        fastest are."""
        refusing = [check for check in self.checks(tested) if not check.holds]
        if not refusing:
            return
        self.refused[tested] = refusing
        self._choose_again()

    def _drop_violators(self) -> None:
        """Finalists outside a constraint by all their rounds; they cannot win, however fast."""
        for config in list(self._finalists):
            checks = self._stability.constraint_checks(config, self.runs(config))
            violated = [check for check in checks if not check.holds]
            if violated and self.rounds(config) >= _FULL_ROUNDS:
                self.refused[config] = violated
        if any(config in self.refused for config in self._finalists):
            self._choose_again()

    def _choose_again(self) -> None:
        fit = [record for record in self._ledger.measured() if not self._is_out(record.result.config)]
        self._finalists = self._chosen(fit)
        self._been_finalists.update(self._finalists)

    def _is_out(self, config: TrainConfig) -> bool:
        return config in self._rejected or self._is_like_a_failed_one(config)

    def _is_like_a_failed_one(self, config: TrainConfig) -> bool:
        return config in self.refused or any(
            (arithmetic(config) == arithmetic(failed) and not self._meets_gates(checks))
            or (config.amp_dtype == failed.amp_dtype != "none" and any(map(blames_precision, checks)))
            for failed, checks in self.refused.items()
        )

    def _meets_gates(self, refusing: Sequence[Check]) -> bool:
        """Whether only constraints refuse: another way to feed the same arithmetic may meet them."""
        return {check.name for check in refusing} <= {constraint.text for constraint in self._stability.constraints}

    def _run_round(self, number: int, racing: Sequence[TrainConfig], limit_s: float) -> None:
        self._given_s = limit_s
        for config in self._random.sample(racing, len(racing)):
            request = confirming_request(config, self._seed + number, limit_s, self._measured.well_known)
            deadline_s = min(3 * self._costs.run_s(config, limit_s) + 5, self._budget.remaining_s)
            if deadline_s <= 0:
                return
            record = self._runner.run(request, Purpose.CONFIRM, deadline_s=deadline_s, round_number=number)
            if not is_ok(record) and config in self._finalists and self._budget.remaining_s > 0:
                self.reject(config)

    def _decided(self) -> bool:
        """Whether the leader is clearly faster than the baseline, or clearly not, and clearly the best or as good as
        any, and its throughput is known well."""
        leader = self.leader() or self.baseline
        rounds = self.rounds(leader)
        if rounds >= _MOST_ROUNDS or rounds <= _FULL_ROUNDS:
            return rounds >= _MOST_ROUNDS
        rivals = {self.baseline, *self._contenders(leader)} - {leader}
        if not all(self._measured.is_decided(leader, rival) for rival in rivals):
            return False
        interval = self.throughput(leader).interval
        return interval is not None and interval.is_within(_PRECISE)

    def _round_s(self, configs: Sequence[TrainConfig], limit_s: float) -> float:
        """What a round will take: as long as each run took the last time, or as the search's trials tell."""
        walls = {record.result.config: record.result.wall_s for record in self._ledger.of_purpose(Purpose.CONFIRM)}
        longer_s = max(limit_s - self._given_s, 0.0)
        return SPARE * sum(
            walls[config] + longer_s if config in walls else self._costs.run_s(config, limit_s) for config in configs
        )

    def _run_limit_s(self, soak_s: float) -> float:
        """Training seconds of one run: so long that they tell the most in a given time, if the planned rounds fit."""
        full, duel = [self.baseline, *self._finalists], [self.baseline, *self._finalists[:1]]
        done = self.rounds(self.baseline)
        rounds, duels = max(_FULL_ROUNDS - done, 0), max(min(_DUEL_ROUNDS, _FULL_ROUNDS + _DUEL_ROUNDS - done), 1)
        fixed_s = self._costs.rounds_s(full, rounds, 0.0) + self._costs.rounds_s(duel, duels, 0.0)
        runs = rounds * len(full) + duels * len(duel)
        left_s = self._budget.remaining_s - soak_s - self._tests_reserve_s()
        share_s = (left_s - fixed_s) / (runs * SPARE)
        return min(
            max(min(share_s, self._measured.best_run_s(full, self._costs)), SHORTEST_RUN_S), 2 * self._budget.trial_s
        )

    def _soak_reserve_s(self) -> float:
        """For the soak of the slowest finalist; nothing where it would leave no time for the rounds that come first."""
        soak_s = max((self._costs.soak_s(config, self._soak_steps) for config in self._finalists), default=0.0)
        rounds_s = self._costs.rounds_s([self.baseline, *self._finalists[:1]], FEWEST_ROUNDS + 1)
        left_s = self._budget.remaining_s
        return soak_s if soak_s < min(_MOST_FOR_SOAK * left_s, left_s - rounds_s) else 0.0

    def _tests_reserve_s(self) -> float:
        if not self._finalists:
            return 0.0
        return self._costs.tests_s(self._finalists[0], self.baseline, self._stability, soak_steps=0)
