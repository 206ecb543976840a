"""The verdict: which configuration is emitted, after which gates, with which words."""

from __future__ import annotations

from typing import Any

from autotune.config import TrainConfig
from autotune.records import Check, Facts, Phase, Purpose, TrialRequest, TrialResult, TrialStatus
from autotune.search.budget import Budget
from autotune.search.confirm import FEWEST_ROUNDS, TIE, WORTHWHILE, Confirmation
from autotune.search.emit import STABLE, UNCONFIRMED, best_document
from autotune.search.figures import measurement_of, measurement_of_runs
from autotune.search.gates import soak
from autotune.search.ledger import Ledger
from autotune.search.runner import TrialRunner
from autotune.spec import Spec
from autotune.stats import Estimate


class Conclusion:
    """Turns what the ledger holds into the document of `best.yaml`, at any moment of the study."""

    def __init__(self, *, spec: Spec, spec_sha256: str, ledger: Ledger, budget: Budget, facts: Facts) -> None:
        self._spec = spec
        self._spec_sha256 = spec_sha256
        self._ledger = ledger
        self._budget = budget
        self._facts = facts

    def provisional(self) -> dict[str, Any] | None:
        """The best so far, by its one run of the search; None before the baseline has a figure."""
        fastest, baseline = self._ledger.measured()[:1], self._ledger.baseline()
        if not fastest or baseline is None:
            return None
        ours, theirs = measurement_of(fastest[0].result), measurement_of(baseline.result)
        return best_document(
            config=fastest[0].result.config,
            measured=ours,
            baseline_config=baseline.result.config,
            baseline=theirs,
            speedup=Estimate(ours.samples_per_s / theirs.samples_per_s, None),
            checks=[],
            verdict=UNCONFIRMED,
            **self._common(),
        )

    def confirmed_so_far(self, confirmation: Confirmation) -> dict[str, Any] | None:
        """The leader of the rounds before its soak: what stands if the soak is interrupted."""
        config = confirmation.leader()
        if config is None or not _is_faster(confirmation.speedup(config)):
            return None
        checks = [*confirmation.checks(config), soak(None, self._spec.stability.soak_steps)]
        return self._document(confirmation, config, confirmation.speedup(config), checks)

    def confirmed(self, confirmation: Confirmation, runner: TrialRunner) -> dict[str, Any] | None:
        """The best that is faster beyond doubt and passes every gate and the soak; else the baseline.

        None before two rounds: one says nothing about the spread.
        """
        if confirmation.rounds(confirmation.baseline) < FEWEST_ROUNDS:
            return None
        # Only of the best of those that stand: whatever ranks below it has shown less.
        settled: bool | None = None
        while (config := confirmation.leader()) is not None:
            speedup = confirmation.speedup(config)
            if _is_faster(speedup):
                last = self._soak(runner, config)
                if last.passed or self._ran_out():
                    return self._document(confirmation, config, speedup, [*confirmation.checks(config), last])
            elif settled is None:
                settled = not _may_be_faster(speedup)
            confirmation.reject(config)
        baseline = confirmation.baseline
        settled = self._ledger.exhausted if settled is None else settled
        checks = [*confirmation.checks(baseline), _nothing_faster(settled)]
        return self._document(confirmation, baseline, Estimate(1.0, None), checks)

    def _soak(self, runner: TrialRunner, config: TrainConfig) -> Check:
        """Train the winner for the steps that the spec asks; a run of an earlier session counts."""
        steps = self._spec.stability.soak_steps
        done = [record.result for record in self._ledger.of_purpose(Purpose.SOAK) if record.result.config == config]
        passed = next((result for result in done if soak(result, steps).passed), None)
        if passed or not steps:
            return soak(passed, steps)
        return soak(self._run_soak(runner, config, steps), steps)

    def _run_soak(self, runner: TrialRunner, config: TrainConfig, steps: int) -> TrialResult | None:
        if self._ran_out():
            return None
        runner.phase = Phase.SOAKING
        request = TrialRequest(config=config, seed=self._spec.training.seed, time_limit_s=0.0, min_steps=steps)
        result = runner.run(request, Purpose.SOAK, deadline_s=self._budget.remaining_s).result
        return None if result.status is TrialStatus.TIMEOUT else result

    def _ran_out(self) -> bool:
        """Whether there is no time for a soak, or was not for the whole of it: no fault of the configuration."""
        return self._budget.remaining_s <= 1

    def _document(
        self, confirmation: Confirmation, config: TrainConfig, speedup: Estimate, checks: list[Check]
    ) -> dict[str, Any]:
        baseline = confirmation.baseline
        certain = speedup.interval is not None or config == baseline
        return best_document(
            config=config,
            measured=measurement_of_runs(list(confirmation.runs(config).values()), confirmation.throughput(config)),
            baseline_config=baseline,
            baseline=measurement_of_runs(list(confirmation.runs(baseline).values()), confirmation.throughput(baseline)),
            speedup=speedup,
            checks=checks,
            verdict=STABLE if certain and all(check.passed for check in checks) else UNCONFIRMED,
            **self._common(),
        )

    def _common(self) -> dict[str, Any]:
        return {
            "study": self._spec.name,
            "ledger": self._ledger,
            "budget": self._budget,
            "facts": self._facts,
            "spec_sha256": self._spec_sha256,
        }


def _is_faster(speedup: Estimate) -> bool:
    """By more than a tie, and with its whole interval."""
    return speedup.value > TIE and speedup.interval is not None and speedup.interval.low > 1


def _may_be_faster(speedup: Estimate) -> bool:
    """Whether the interval still holds a speed-up that somebody would want."""
    return speedup.interval is None or speedup.interval.high > WORTHWHILE


def _nothing_faster(settled: bool) -> Check:
    """That the baseline stands because the others were measured and are not worthwhile, not for want of figures."""
    detail = "" if settled else "a configuration may still be faster, or none was tried"
    return Check(name="nothing_faster", passed=settled, value=float(not settled), limit=0, detail=detail)
