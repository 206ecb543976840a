"""The search share of the budget: ask, run, tell, until its time is over, the whole space is measured, or nothing left
is worth a trial; on several devices, as many trials at once."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from autotune.config import TrainConfig
from autotune.errors import EnvironmentFailure, NoStableConfiguration
from autotune.records import Phase, Purpose, TrialRecord, TrialRequest
from autotune.search.budget import Budget
from autotune.search.figures import is_ok
from autotune.search.finalists import choose_finalists
from autotune.search.gates import loss_rise
from autotune.search.ledger import Ledger
from autotune.search.policy import LAST_TRIALS, SHORTEST_SIDE_S, SIDE_SHARES, SMALLEST_USEFUL_TRIAL_S
from autotune.search.racing import hopeless_below, restart_spread
from autotune.search.runner import TrialRunner
from autotune.search.stability import Stability
from autotune.search.telling import NothingWorthTrying
from autotune.search.timetable import Timetable
from autotune.spec.durations import format_duration


class Exploration:
    """Runs the baseline, the expert's seeds and the strategy's proposals."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        runner: TrialRunner,
        budget: Budget,
        baseline: TrainConfig,
        seeds: Sequence[TrainConfig],
        seed: int,
        stability: Stability,
        timetable: Timetable,
        on_better: Callable[[], None],
        simplest: Callable[[TrainConfig], TrainConfig],
    ) -> None:
        """`seed`: of the model's weights and the sample order, the same in every search trial. `timetable`: of the
        confirmation, later, for which time is kept. `on_better` is called whenever a trial is the fastest so far.
        `simplest`: a configuration without the settings that may well gain nothing; it is tried last."""
        self._ledger = ledger
        self._runner = runner
        self._budget = budget
        self._baseline = baseline
        self._seeds = seeds
        self._seed = seed
        self._stability = stability
        self._timetable = timetable
        self._on_better = on_better
        self._simplest = simplest
        self._last_trials = 0

    def run(self) -> None:
        """Raises NoStableConfiguration when the baseline comes to no figure.

        Asked again between the rounds of the confirmation: where these show that runs differ more than was expected,
        more is left to be tried.
        """
        if self._ledger.baseline() is None:
            self._measure_baseline()
        self._require_learning()
        while self._fill() or self._runner.in_flight:
            self._take_next()

    def _fill(self) -> bool:
        """Begin trials while there is room and time; whether any has begun."""
        begun = False
        start_up_s = self._start_up_s()
        while self._runner.has_room and self._budget.search_remaining_s > start_up_s + SMALLEST_USEFUL_TRIAL_S:
            if self._ledger.exhausted:
                break
            if self._is_near_its_end():
                self._plan_the_simplest()
            elif self._runner.runs_one_at_a_time and self._measure_side(start_up_s):
                return True
            try:
                number, config = self._ledger.ask()
            except NothingWorthTrying:
                if self._last_trials < LAST_TRIALS and self._plan_the_simplest():
                    self._last_trials += 1
                    continue
                break
            purpose = Purpose.SEED if config in self._seeds else Purpose.SEARCH
            limit_s = min(self._budget.trial_s, self._budget.search_remaining_s - start_up_s)
            self._runner.phase = Phase.SEARCHING
            patience_s = self._budget.patience_s(self._baseline_wall_s(), compiles=config.compile != "none")
            self._runner.begin(
                self._request(config, limit_s, self._floor()),
                purpose,
                deadline_s=self._budget.trial_deadline_s(patience_s),
                optuna_trial=number,
                patience_s=patience_s,
            )
            begun = True
        return begun

    def _measure_side(self, start_up_s: float) -> bool:
        """Begin to measure one side of a configuration, if the strategy wants to know any."""
        aside = self._ledger.next_side()
        if aside is None:
            return False
        self._runner.phase = Phase.SEARCHING
        patience_s = self._budget.patience_s(self._baseline_wall_s(), compiles=aside.config.compile != "none")
        limit_s = max(SIDE_SHARES[aside.side] * self._budget.trial_s, SHORTEST_SIDE_S)
        request = self._request(aside.config, min(limit_s, self._budget.search_remaining_s - start_up_s), None)
        self._runner.begin(
            request.model_copy(update={"side": aside.side}),
            Purpose.SIDE,
            deadline_s=self._budget.trial_deadline_s(patience_s),
            patience_s=patience_s,
        )
        return True

    def _is_near_its_end(self) -> bool:
        walls = [record.result.wall_s for record in self._ledger.measured()]
        return bool(walls) and self._budget.search_remaining_s <= LAST_TRIALS * statistics.median(walls)

    def _plan_the_simplest(self) -> bool:
        """The next trial, as one of the last: the best so far without what may well gain nothing. Whether it is new.

        Asked again before each of them: what the one before has shown changes the answer.
        """
        best = self._ledger.eligible()[:1]
        if not best:
            return False
        config, planned = self._simplest(best[0].result.config), self._ledger.strategy.planned
        tried = {record.result.config for record in self._ledger.records if record.purpose is not Purpose.SIDE}
        if config in planned or config in tried:
            return False
        planned.append(config)
        return True

    def _measure_baseline(self) -> None:
        deadline_s = self._budget.baseline_deadline_s()
        if deadline_s < SMALLEST_USEFUL_TRIAL_S:
            spent = f"the budget of {format_duration(self._budget.total_s)} is spent"
            raise NoStableConfiguration(f"{spent} before the baseline could be measured; raise it")
        number, config = self._ledger.ask()
        self._runner.phase = Phase.SEARCHING
        request = self._request(config, self._budget.trial_s, None)
        self._runner.begin(request, Purpose.BASELINE, deadline_s=deadline_s, optuna_trial=number)
        record = self._take_next()
        if record is None:
            raise EnvironmentFailure("the baseline's machine was lost while it ran; run the same command again")
        if not is_ok(record):
            raise NoStableConfiguration(_why_no_baseline(record, self._budget))

    def _require_learning(self) -> None:
        """No setting of ours mends a training that goes astray by itself, and no budget should be spent on it."""
        baseline = self._ledger.baseline()
        rise = loss_rise(baseline.result) if baseline else None
        if baseline and rise and not rise.passed:
            raise NoStableConfiguration(
                f"the baseline itself does not learn: its loss goes {rise.detail}; lower training.optimizer.lr, or "
                f"mend the loss. Its record is trials/{baseline.number:04d}.json"
            )

    def _request(self, config: TrainConfig, limit_s: float, floor: float | None) -> TrialRequest:
        return TrialRequest(
            config=config, seed=self._seed, time_limit_s=limit_s, hopeless_below=floor, in_any_process=True
        )

    def _take_next(self) -> TrialRecord | None:
        """Wait for a trial's end, and plan with what it came to; None where it was lost."""
        fastest_before = self._ledger.eligible()[:1]
        record = self._runner.next_ended()
        finalists = choose_finalists(self._ledger.measured(), self._baseline, self._stability.constraints)
        self._budget.reserve_for_confirming(self._timetable.needed_s(finalists))
        if self._ledger.eligible()[:1] != fastest_before:
            self._on_better()
        return record

    def _floor(self) -> float | None:
        """What a trial must reach to go on: it stops itself once it can no longer win."""
        fastest = self._ledger.eligible()[:1]
        return hopeless_below(fastest[0], restart_spread(self._ledger.records)) if fastest else None

    def _baseline_wall_s(self) -> float:
        baseline = self._ledger.baseline()
        return baseline.result.wall_s if baseline else 0.0

    def _start_up_s(self) -> float:
        baseline = self._ledger.baseline()
        return baseline.result.start_up_s or 0.0 if baseline else 0.0


def _why_no_baseline(record: TrialRecord, budget: Budget) -> str:
    result = record.result
    reason = result.failure.reason if result.failure else "no timed block"
    where = f"its record is trials/{record.number:04d}.json"
    advice = {
        "oom": "give a smaller baseline.micro_batch_size",
        "timeout": f"the budget of {format_duration(budget.total_s)} is too short for this workload; raise it",
        "diverged": "lower training.optimizer.lr, or mend the model: training does not survive its first steps",
    }.get(result.status, "mend the workload")
    return f"the baseline itself fails ({result.status}): {reason}; {advice}. {where}"
