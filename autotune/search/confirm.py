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
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from autotune.config import TrainConfig
from autotune.records import Check, Phase, Purpose, TrialRecord, TrialRequest, TrialResult
from autotune.search.budget import Budget
from autotune.search.earning import (
    Gain,
    by_model,
    is_as_good,
    is_part,
    settings,
    simplest_as_good,
    still_simpler,
    strengths,
    together,
)
from autotune.search.figures import confirming_request, is_ok
from autotune.search.finalists import Finalists
from autotune.search.ledger import Ledger
from autotune.search.measured_rounds import MeasuredRounds
from autotune.search.next_round import RoundsSoFar, Seconds, next_round
from autotune.search.performance import PerformanceModel
from autotune.search.policy import (
    CONFIRM_SHARE,
    FULL_ROUNDS,
    LITTLE,
    MOST_ROUNDS,
    NEXT_TO_NOTHING,
    PATIENCE,
    PATIENCE_S,
    PRECISE,
    TRUE_TO,
)
from autotune.search.runner import TrialRunner
from autotune.search.space import Space
from autotune.search.stability import Stability
from autotune.search.timetable import Timetable
from autotune.stats import TIE, Comparison, Estimate, Outcome, Posterior, rests_on_disturbed


class Confirmation:
    """Rounds over the finalists and the baseline; those of an earlier session count."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        runner: TrialRunner,
        budget: Budget,
        timetable: Timetable,
        stability: Stability,
        space: Space,
        model: Callable[[], PerformanceModel],
        seed: int,
    ) -> None:
        """`model`: what the search's trials have shown, and how much runs differ by all that have run."""
        self._ledger = ledger
        self._runner = runner
        self._budget = budget
        self._stability = stability
        self._seed = seed
        self._timetable = timetable
        self.baseline = space.baseline
        self._space = space
        self._model = model
        fitted = model()
        self._expected, self._expected_at = by_model(fitted), self._round
        self._finalists = Finalists(ledger, self.baseline, stability.constraints, fitted)
        self._measured = MeasuredRounds(ledger, self.baseline, self._finalists.ever)
        self._leaders: dict[tuple[bool, int, tuple[TrainConfig, ...]], TrainConfig | None] = {}

        for config in self._finalists:  # an earlier session may have tested them
            if stability.needs_reference(config) and stability.is_tested(config):
                self._replace_if_unstable(config)

    def run_round(self) -> bool:
        """The next round, and what follows from it; False when the answer is clear, or only the soak's time is left."""
        limit_s = self._run_limit_s()
        racing = self._racing(limit_s)
        if not racing or self._decided(racing):
            return False
        self._runner.phase = Phase.CONFIRMING
        before = len(self._ledger.records)
        self._run_round(self._round + 1, racing, limit_s)
        if len(self._ledger.records) == before:  # a first run may take longer than rounds usually leave it
            return False
        self._drop_violators()
        self._add_simpler()
        self._test_leader()
        return True

    @property
    def _round(self) -> int:
        """The last that has begun."""
        return max((record.round or 0 for record in self._ledger.of_purpose(Purpose.CONFIRM)), default=0)

    def leader(self, *, tested: bool = False) -> TrainConfig | None:
        """The best finalist that passes the gates: the fastest by all that is known, each compared with each other in
        the rounds that both ran in, for those that dropped out met other rounds. But what is as good as the fastest
        goes to the smaller change from the baseline, then to more rounds, then to less memory; and of that one the
        simplest part that is as good. None when none is left.

        `tested`: only of those that have been through the stability tests.
        """
        # Kept until there is another run or another finalist: it is asked for ten times a round.
        now = tested, len(self._ledger.records), tuple(self._finalists)
        if now not in self._leaders:
            self._leaders = {now: self._find_leader(tested=tested)}
        return self._leaders[now]

    def _find_leader(self, *, tested: bool) -> TrainConfig | None:
        passing = [
            config
            for config in self._finalists
            if self.rounds(config) and self._passes(config) and (not tested or self._stability.is_tested(config))
        ]
        if not passing:
            return None
        strength = strengths(passing, self._gain)
        tie = max(strength.values()) - math.log(TIE)

        def preference(config: TrainConfig) -> tuple[bool, float, int, float]:
            tied = strength[config] > tie
            changes = len(config.differences(self.baseline))
            memory = max((run.memory.peak_bytes for run in self.runs(config).values() if run.memory), default=0)
            return (not tied, changes if tied else -strength[config], -self.rounds(config), memory)

        return simplest_as_good(min(passing, key=preference), passing, self.baseline, self._is_as_good)

    def reject(self, config: TrainConfig, refusing: Sequence[Check] = ()) -> None:
        """`config` is out, and the next becomes the leader. `refusing`: the gates that say why, where any do."""
        self._finalists.reject(config, refusing)

    @property
    def refused(self) -> dict[TrainConfig, list[Check]]:
        """Configurations that failed their tests, a constraint or their soak, and the gates that refused them."""
        return self._finalists.refused

    @property
    def baseline_may_stand(self) -> bool:
        """Whether the baseline meets the spec's own constraints; else the best that does is emitted, faster or not."""
        return all(check.holds for check in self._stability.constraint_checks(self.baseline, self.runs(self.baseline)))

    def checks(self, config: TrainConfig) -> list[Check]:
        """The gates of the runs so far. Those of the baseline ask whether the training is sound as it stands."""
        return self._stability.checks(config, self.runs(config), self.runs(self.baseline))

    def runs(self, config: TrainConfig) -> dict[int, TrialResult]:
        """Round → run, of those that measured it."""
        return {number: run.result for number, run in self._measured.runs(config).items()}

    def rounds(self, config: TrainConfig) -> int:
        """Those that measured both `config` and the baseline."""
        return len(self._measured.common(config, self.baseline))

    def speedup(self, config: TrainConfig) -> Comparison:
        """Over the baseline. Needs one common round."""
        return self._measured.compare(config, self.baseline)

    def throughput(self, config: TrainConfig, soaked: TrialResult | None = None) -> Estimate:
        """Over the rounds, and its soak. Needs one round."""
        return self._measured.throughput(config, soaked)

    def rate(self, config: TrainConfig) -> Posterior:
        """Posterior of ln(samples per second), over the rounds. Needs one round."""
        return self._measured.rate(config)

    def accuracy(self, config: TrainConfig) -> float:
        """What the measuring itself may be off by, relative, as a standard deviation."""
        return self._measured.accuracy(config)

    def settings(self, config: TrainConfig) -> list[dict[str, Any]]:
        """What each setting of `config` gains, and each that another finalist has beside them, for `best.yaml`."""
        richer = [other for other in self._finalists.ever if is_part(config, other, self.baseline)]
        return [setting.to_dict() for setting in settings(config, richer, self._space, self._gain)]

    def _gain(self, one: TrainConfig, other: TrainConfig) -> Gain:
        """By the rounds, and by the model as far as they leave it open."""
        if self._expected_at != self._round:
            self._expected, self._expected_at = by_model(self._model()), self._round
        measured, expected = self._measured.gain(one, other), self._expected(one, other)
        return together(measured, expected) if measured else expected

    def _is_as_good(self, rich: TrainConfig, simple: TrainConfig) -> bool:
        return is_as_good(self._measured.gain(rich, simple), self._gain(rich, simple))

    def _add_simpler(self) -> None:
        """Another finalist: the leader without settings that are not known to gain 1 %, where there is time for it.
        What was not tried in the search gets its trial first."""
        leader = self.leader()
        if leader is None or self.rounds(leader) < FULL_ROUNDS or self._has_had_its_share():
            return
        simple = still_simpler(leader, self._finalists.may_join, self._space, self._gain)
        if simple is None:
            return
        limit_s = self._run_limit_s()
        rounds_s = FULL_ROUNDS * self._timetable.round_s([self.baseline, leader, simple], limit_s)
        tried = {record.result.config for record in self._ledger.measured()}
        trial_s = 0.0 if simple in tried else self._timetable.costs.run_s(simple, limit_s)
        if trial_s + rounds_s < self._for_rounds_s() and (simple in tried or self._try(simple, limit_s)):
            self._finalists.add(simple)

    def _try(self, config: TrainConfig, limit_s: float) -> bool:
        """A trial of the search after its end, as long as a confirming run; whether it came to a figure."""
        self._ledger.strategy.planned.append(config)
        number, asked = self._ledger.ask()
        if asked != config:  # it is under way in another session of the study
            self._ledger.withdraw(number)
            return False
        request = TrialRequest(config=config, seed=self._seed, time_limit_s=limit_s, in_any_process=True)
        patience_s = PATIENCE * self._timetable.costs.run_s(config, limit_s) + PATIENCE_S
        record = self._runner.run(
            request,
            Purpose.SEARCH,
            deadline_s=min(patience_s, self._for_rounds_s()),
            optuna_trial=number,
            patience_s=patience_s,
        )
        return is_ok(record)

    def _passes(self, config: TrainConfig) -> bool:
        return all(check.holds for check in self.checks(config))

    def _racing(self, limit_s: float) -> list[TrainConfig]:
        """Who runs the next round; nobody when there is no time for it."""
        round_s = partial(self._timetable.round_s, limit_s=limit_s)
        return next_round(self._so_far(round_s), self._for_rounds_s(), round_s)

    def _so_far(self, round_s: Seconds) -> RoundsSoFar:
        leader, finalists = self.leader(), list(self._finalists)
        known = [self.baseline, *finalists]
        return RoundsSoFar(
            baseline=self.baseline,
            leader=leader,
            finalists=finalists,
            rounds={config: self.rounds(config) for config in known},
            runs={config: len(self.runs(config)) for config in known},
            at_stake={config: self._at_stake(leader, config) if leader else math.inf for config in finalists},
            least_at_stake=LITTLE if leader and self._is_known_in_time(leader, round_s) else NEXT_TO_NOTHING,
            is_clear=leader is not None and self._measured.is_decided(leader, self.baseline),
        )

    def _is_known_in_time(self, leader: TrainConfig, round_s: Seconds) -> bool:
        """Whether its throughput can still be known well, by runs of it alone."""
        runs = len(self.runs(leader))
        doubt = self._measured.doubt(leader) if runs else math.inf
        more = runs * ((doubt / TRUE_TO) ** 2 - 1)  # it falls with the root of their number
        return math.isinf(doubt) or more * round_s([leader]) <= self._for_rounds_s()

    def _at_stake(self, leader: TrainConfig, other: TrainConfig) -> float:
        return 0.0 if other == leader else self._measured.expected_loss(leader, other)

    def _test_leader(self) -> None:
        """The stability tests, as soon as there is a leader worth them, and in time to find another. Not while a part
        of it that may take its place has yet to run: there may be no time to test both."""
        leader = self.leader()
        if leader is None or self.rounds(leader) < FULL_ROUNDS or self._stability.is_tested(leader):
            return
        parts = [config for config in self._finalists if is_part(config, leader, self.baseline)]
        if any(self.rounds(config) < FULL_ROUNDS for config in parts):
            return
        is_worth_it = self.speedup(leader).outcome is Outcome.FASTER or not self.baseline_may_stand
        if not is_worth_it or self._budget.remaining_s < self._timetable.tests_and_soak_s(leader):
            return
        self.test(leader)

    def test(self, config: TrainConfig) -> None:
        """The stability tests of `config`, as far as time allows; one that fails them makes way for the next."""
        self._runner.phase = Phase.TESTING
        self._stability.test(config)
        self._replace_if_unstable(config)

    def _replace_if_unstable(self, tested: TrainConfig) -> None:
        refusing = [check for check in self.checks(tested) if not check.holds]
        if refusing:
            self._finalists.refuse(tested, refusing)

    def _drop_violators(self) -> None:
        """Finalists outside a constraint by all their rounds; they cannot win, however fast."""
        for config in self._finalists:
            checks = self._stability.constraint_checks(config, self.runs(config))
            violated = [check for check in checks if not check.holds]
            if violated and self.rounds(config) >= FULL_ROUNDS:
                self._finalists.refuse(config, violated)

    def _run_round(self, number: int, racing: Sequence[TrainConfig], limit_s: float) -> None:
        """Each of them once, the first in a new process, as long as there is time; again, where other work disturbed
        all that it measured and the machine is usually free: the burst may be over."""
        self._timetable.begin_round(limit_s)
        order = random.Random(f"{self._seed} {number}")
        for place, config in enumerate(order.sample(racing, len(racing))):
            record = self._run(config, number, limit_s, in_any_process=place > 0)
            if record and rests_on_disturbed(record.result.blocks) and self._is_usually_free():
                record = self._run(config, number, limit_s) or record
            if record is None:
                return
            if not is_ok(record) and not record.cut_short and config in self._finalists:
                self.reject(config)

    def _run(
        self, config: TrainConfig, number: int, limit_s: float, *, in_any_process: bool = True
    ) -> TrialRecord | None:
        """One confirming run; None where there is no time for it. One that takes longer than it should have does not
        take the time of the tests and the soak."""
        request = confirming_request(
            config,
            self._seed + number,
            limit_s,
            self._measured.well_known,
            in_any_process=in_any_process,
            data_was_read=self._measured.data_was_read,
            slow_batches=self._measured.slow_batches(config),
        )
        expected_s, left_s = self._timetable.costs.run_s(config, limit_s), self._for_rounds_s()
        if left_s < expected_s:
            return None
        patience_s = PATIENCE * expected_s + PATIENCE_S
        deadline_s = min(patience_s, left_s)
        return self._runner.run(
            request, Purpose.CONFIRM, deadline_s=deadline_s, round_number=number, patience_s=patience_s
        )

    def _is_usually_free(self) -> bool:
        """Whether most runs have found the machine undisturbed long enough."""
        blocks = [record.result.blocks for record in self._ledger.records if is_ok(record)]
        return 2 * sum(map(rests_on_disturbed, blocks)) < len(blocks)

    def _decided(self, racing: Sequence[TrainConfig]) -> bool:
        """Whether the leader is clearly faster than the baseline, or clearly not, and clearly the best or as good as
        any that a next round would compare it with, and its throughput is known well.

        `racing`: who would run the next round.
        """
        leader = self.leader() or self.baseline
        runs = len(self.runs(leader))
        if runs >= MOST_ROUNDS or runs <= FULL_ROUNDS:
            return runs >= MOST_ROUNDS
        rivals = set(racing) - {leader}
        if not all(self._is_settled(leader, rival) for rival in rivals):
            return False
        return self._measured.doubt(leader) <= (TRUE_TO if self._has_had_its_share() else PRECISE)

    def _is_settled(self, leader: TrainConfig, rival: TrainConfig) -> bool:
        """Whether one of the two is clearly the faster, or they are alike; or, but for the baseline, whether it hardly
        matters which of them is emitted."""
        if self._measured.is_decided(leader, rival):
            return True
        matters = self.baseline in (leader, rival) or self._budget.use_all
        return not matters and self._measured.expected_loss(leader, rival) < LITTLE

    def _has_had_its_share(self) -> bool:
        """Whether it has taken as long as is usual after such a search. One that ended early leaves more time, which
        is for what must be clear, not for what would be clearer still."""
        runs = [
            record.result.wall_s
            for record in self._ledger.records
            if record.optuna_trial is None and record.purpose is not Purpose.SIDE
        ]
        return not self._budget.use_all and math.fsum(runs) > CONFIRM_SHARE * self._budget.elapsed_s

    def _for_rounds_s(self) -> float:
        return self._timetable.for_rounds_s(list(self._finalists), self._done())

    def _run_limit_s(self) -> float:
        """Training seconds of one run: so long that they tell the most in a given time, if the planned rounds fit."""
        best_s = self._measured.best_run_s([self.baseline, *self._finalists], self._timetable.costs)
        return self._timetable.run_limit_s(list(self._finalists), self._done(), best_s)

    def _done(self) -> int:
        """Rounds that the leader and the baseline have come through."""
        leader = self.leader()
        return self.rounds(leader) if leader else 0
