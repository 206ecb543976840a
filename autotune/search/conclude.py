"""The verdict: which configuration is emitted, after which gates, with which words."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from autotune.config import TrainConfig
from autotune.records import (
    Check,
    Facts,
    Measurement,
    Phase,
    Purpose,
    TrialRecord,
    TrialRequest,
    TrialResult,
)
from autotune.search.budget import Budget
from autotune.search.confirm import Confirmation
from autotune.search.emit import STABLE, UNCONFIRMED, best_document
from autotune.search.figures import measurement_of, measurement_of_runs, relative_error, samples_per_s
from autotune.search.gates import SOAK_THROUGHPUT, soak, soak_throughput, steady_state, violations
from autotune.search.ledger import Ledger
from autotune.search.policy import SOAK_SHARE
from autotune.search.runner import TrialRunner
from autotune.search.stability import Stability, not_cut
from autotune.search.timetable import Timetable
from autotune.spec import Spec
from autotune.stats import FEWEST_ROUNDS, WORTHWHILE, Comparison, Estimate, Outcome, Posterior, judge, stated


class Conclusion:
    """Turns what the ledger holds into the document of `best.yaml`, at any moment of the study."""

    def __init__(
        self,
        *,
        spec: Spec,
        spec_sha256: str,
        ledger: Ledger,
        budget: Budget,
        timetable: Timetable,
        facts: Facts,
        stability: Stability,
    ) -> None:
        self._spec = spec
        self._spec_sha256 = spec_sha256
        self._ledger = ledger
        self._budget = budget
        self._timetable = timetable
        self._facts = facts
        self._stability = stability

    def provisional(self) -> dict[str, Any] | None:
        """The best so far that meets the constraints, by its one run of the search; None before the baseline has a
        figure."""
        baseline = self._ledger.baseline()
        if baseline is None:
            return None
        fastest = next(filter(self._meets_constraints, self._ledger.measured()), baseline)
        ours, theirs = measurement_of(fastest.result), measurement_of(baseline.result)
        return best_document(
            config=fastest.result.config,
            measured=ours,
            baseline_config=baseline.result.config,
            baseline=theirs,
            speedup=Comparison(
                ratio=Estimate(ours.samples_per_s / theirs.samples_per_s, None), outcome=Outcome.AMBIGUOUS, pairs=0
            ),
            checks=[],
            refused={},
            verdict=UNCONFIRMED,
            **self._common(),
        )

    def _meets_constraints(self, record: TrialRecord) -> bool:
        return max(violations(record, self._stability.constraints), default=0.0) <= 0

    def confirmed_so_far(self, confirmation: Confirmation) -> dict[str, Any] | None:
        """The leader of the rounds before its soak: what stands if the soak is interrupted. None where no leader is
        worth it, or its soak has failed in an earlier session."""
        config = confirmation.leader()
        if config is None or not self._is_worthwhile(confirmation, config) or self._failed_soak(config):
            return None
        checks = [*self._checks(confirmation, config), soak(None, self._spec.stability.soak_steps)]
        return self._document(confirmation, config, checks)

    def confirmed(
        self, confirmation: Confirmation, runner: TrialRunner, on_refused: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any] | None:
        """The best that is faster beyond doubt and passes every gate and the soak; else the baseline. Where the
        baseline does not meet the spec's own constraints, the best that passes and does, however slow.

        None before two rounds: one says nothing about the spread. `on_refused`: takes what stands once a soak has
        refused what stood before.
        """
        if confirmation.rounds(confirmation.baseline) < FEWEST_ROUNDS:
            return None
        # Only of the best of those that stand: whatever ranks below it has shown less.
        closest: tuple[TrainConfig, Comparison] | None = None
        while (config := self._next_best(confirmation)) is not None:
            if not self._is_worthwhile(confirmation, config):
                closest = closest or (config, confirmation.speedup(config))
                confirmation.reject(config)
                continue
            run = self._soak(runner, config)
            checks = self._soak_checks(run)
            refusing = [check for check in checks if not check.holds] if run else []
            if run and not refusing:
                agreement = self._agreement(confirmation, config, run)
                checks.append(agreement)
                if not agreement.holds and not self._is_faster_by_its_soak(confirmation, config, run):
                    refusing = [agreement]
            if not refusing and self._test_late(confirmation, config):
                continue
            if not refusing:
                checks = [*self._checks(confirmation, config), *checks]
                return self._document(confirmation, config, checks, soaked=run)
            confirmation.reject(config, refusing)
            on_refused(self.confirmed_so_far(confirmation) or self._baseline_stands(confirmation, closest))
        return self._baseline_stands(confirmation, closest)

    def _test_late(self, confirmation: Confirmation, config: TrainConfig) -> bool:
        """Run the tests for which there was no time, in what the soak has left; the time is good for nothing else, so
        that half of what they may take will do. Whether they have settled anything."""
        if self._stability.is_tested(config) or self._timetable.tests_s([config]) > 2 * self._budget.remaining_s:
            return False
        return self._test(confirmation, config)

    def _test(self, confirmation: Confirmation, config: TrainConfig) -> bool:
        """Whether the leader is tested now, or another has taken its place."""
        confirmation.test(config)
        return self._stability.is_tested(config) or confirmation.leader() != config

    def _is_faster_by_its_soak(self, confirmation: Confirmation, config: TrainConfig, soaked: TrialResult) -> bool:
        """Whether it is faster than the baseline beyond doubt with the soak's figure too, or the baseline may not
        stand."""
        found = self._compared_by_its_soak(confirmation, config, soaked)
        return found.outcome is Outcome.FASTER or not confirmation.baseline_may_stand

    def _compared_by_its_soak(self, confirmation: Confirmation, config: TrainConfig, soaked: TrialResult) -> Comparison:
        """The soak over the baseline's confirming runs: not of the same rounds, so what rounds differ by counts."""
        theirs = confirmation.rate(confirmation.baseline)
        return judge(self._by_its_soak(confirmation, config, soaked).less(theirs), pairs=1)

    def _by_its_soak(self, confirmation: Confirmation, config: TrainConfig, soaked: TrialResult) -> Posterior:
        """Of ln(samples per second): one run, known as well as its blocks let it be, and as far from the next as runs
        are here."""
        return Posterior.of_one(
            math.log(samples_per_s(soaked)),
            confirmation.rate(config).noise,
            math.hypot(relative_error(soaked), confirmation.accuracy(config)),
        )

    def _baseline_stands(
        self, confirmation: Confirmation, closest: tuple[TrainConfig, Comparison] | None
    ) -> dict[str, Any]:
        baseline = confirmation.baseline
        settled = steady_state(list(confirmation.runs(baseline).values()))
        checks = [*confirmation.checks(baseline), settled, self._nothing_faster(closest, baseline)]
        return self._document(confirmation, baseline, checks)

    def _next_best(self, confirmation: Confirmation) -> TrainConfig | None:
        """The leader; where the rounds ended before it was tested, and so is the budget, a tested one that is faster
        than the baseline all the same."""
        config = confirmation.leader()
        if config is None or self._stability.is_tested(config):
            return config
        needed_s = self._timetable.tests_and_soak_s(config)
        has_time = self._is_worthwhile(confirmation, config) and needed_s <= self._budget.remaining_s
        if has_time and self._test(confirmation, config):
            return self._next_best(confirmation)
        second = confirmation.leader(tested=True)
        return second if second and self._is_worthwhile(confirmation, second) else config

    def _is_worthwhile(self, confirmation: Confirmation, config: TrainConfig) -> bool:
        return confirmation.speedup(config).outcome is Outcome.FASTER or not confirmation.baseline_may_stand

    def _checks(self, confirmation: Confirmation, config: TrainConfig) -> list[Check]:
        missing = self._stability.missing(config)
        settled = steady_state(list(confirmation.runs(config).values()))
        return [*confirmation.checks(config), settled, *([missing] if missing else [])]

    def _nothing_faster(self, closest: tuple[TrainConfig, Comparison] | None, baseline: TrainConfig) -> Check:
        """That the baseline stands because the others were measured and are not worthwhile, not because there was no
        figure of them.

        Value: the upper end of the interval of the best of the others. `closest`: it, and how it compares.
        """
        if closest is None:
            settled = self._ledger.exhausted
            detail = "" if settled else "no other configuration came to a figure and passed its gates"
            return Check(name="nothing_faster", passed=settled, value=1.0, limit=WORTHWHILE, detail=detail)
        config, comparison = closest
        interval = comparison.ratio.interval
        high = interval.high if interval else math.inf
        passed = comparison.outcome is not Outcome.AMBIGUOUS or high <= WORTHWHILE
        names = ", ".join(f"{knob} {own}" for knob, (own, _) in config.differences(baseline).items())
        within = f", {interval.low:.2f} to {interval.high:.2f}" if interval else ""
        detail = f"the best other, {names}: {comparison.ratio.value:.2f}×{within}, {comparison.outcome}"
        return Check(name="nothing_faster", passed=passed, value=high, limit=WORTHWHILE, detail=detail)

    def _soak(self, runner: TrialRunner, config: TrainConfig) -> TrialResult | None:
        """Train the winner for the steps that the spec asks, or longer. A run of an earlier session counts, one that
        failed above all. None where the spec asks for no soak, or the budget has no time for the whole of it."""
        steps = self._spec.stability.soak_steps
        if not steps:
            return None
        passed = next((run for run in self._soaks_of(config) if soak(run, steps).passed), None)
        return self._failed_soak(config) or passed or self._run_soak(runner, config)

    def _failed_soak(self, config: TrainConfig) -> TrialResult | None:
        return next((run for run in self._soaks_of(config) if run.failure), None)

    def _soaks_of(self, config: TrainConfig) -> list[TrialResult]:
        """Those on record that no budget has cut short."""
        runs = (record.result for record in self._ledger.of_purpose(Purpose.SOAK))
        return [run for run in runs if run.config == config and not_cut(run)]

    def _soak_checks(self, run: TrialResult | None) -> list[Check]:
        steps = self._spec.stability.soak_steps
        return [soak(None, steps)] if run is None else self._stability.soak_checks(run, steps)

    def _longer_than_an_epoch(self, config: TrainConfig, steps: int) -> int:
        """`steps`, or as many as take the loader past the end of its epoch, where that costs little."""
        samples = self._facts.workload.dataset_samples
        if samples is None:
            return steps
        wanted = samples // config.effective_batch_size + 2
        cost_s = self._timetable.costs.soak_s(config, wanted)
        affordable = cost_s < min(SOAK_SHARE * self._budget.total_s, self._budget.remaining_s / 2)
        return max(steps, wanted) if affordable else steps

    def _run_soak(self, runner: TrialRunner, config: TrainConfig) -> TrialResult | None:
        if self._budget.remaining_s <= 1:
            return None
        runner.phase = Phase.SOAKING
        steps = self._longer_than_an_epoch(config, self._spec.stability.soak_steps)
        request = TrialRequest(config=config, seed=self._spec.training.seed, time_limit_s=0.0, min_steps=steps)
        result = runner.run(request, Purpose.SOAK, deadline_s=self._budget.remaining_s).result
        hangs = self._budget.remaining_s > 1
        return result if not_cut(result) or hangs else None

    def _agreement(self, confirmation: Confirmation, config: TrainConfig, soaked: TrialResult) -> Check:
        """Whether the soak was as fast as the confirming runs. Where it was, it counts for the throughput as one more
        run; the ratio stays that of the rounds, in which the baseline ran too."""
        error = math.hypot(relative_error(soaked), confirmation.accuracy(config))
        return soak_throughput(soaked, samples_per_s(soaked), confirmation.rate(config), error)

    def _document(
        self, confirmation: Confirmation, config: TrainConfig, checks: list[Check], *, soaked: TrialResult | None = None
    ) -> dict[str, Any]:
        """`soaked`: the soak of `config`; where it contradicts the confirming runs, its figure alone is emitted."""
        baseline = confirmation.baseline
        ours, theirs = self._confirmed(confirmation, config, soaked), self._confirmed(confirmation, baseline)
        speedup = confirmation.speedup(config)
        if config == baseline:
            speedup = Comparison(ratio=Estimate(1.0, None), outcome=Outcome.TIE, pairs=speedup.pairs)
        if soaked and any(check.name == SOAK_THROUGHPUT and not check.holds for check in checks):
            ours = measurement_of_runs([soaked], stated(self._by_its_soak(confirmation, config, soaked)))
            speedup = self._compared_by_its_soak(confirmation, config, soaked)
        certain = config == baseline or self._is_worthwhile(confirmation, config)
        return best_document(
            config=config,
            measured=ours,
            baseline_config=baseline,
            baseline=theirs,
            speedup=speedup,
            checks=checks,
            refused=confirmation.refused,
            settings=confirmation.settings(config),
            verdict=STABLE if certain and all(check.holds for check in checks) else UNCONFIRMED,
            **self._common(),
        )

    def _confirmed(
        self, confirmation: Confirmation, config: TrainConfig, soaked: TrialResult | None = None
    ) -> Measurement:
        runs = [*confirmation.runs(config).values(), *([soaked] if soaked else [])]
        return measurement_of_runs(runs, confirmation.throughput(config, soaked))

    def _common(self) -> dict[str, Any]:
        return {
            "study": self._spec.name,
            "strategy": self._spec.strategy.name,
            "ledger": self._ledger,
            "budget": self._budget,
            "facts": self._facts,
            "spec_sha256": self._spec_sha256,
        }
