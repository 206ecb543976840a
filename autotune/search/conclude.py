"""The verdict: which configuration is emitted, after which gates, with which words."""

from __future__ import annotations

from typing import Any

from autotune.config import TrainConfig
from autotune.records import Check, Facts, Phase, Purpose, TrialRequest, TrialResult
from autotune.search.budget import Budget
from autotune.search.confirm import TIE, Confirmation
from autotune.search.emit import STABLE, UNCONFIRMED, best_document
from autotune.search.figures import measurement_of, measurement_of_runs
from autotune.search.gates import gate_all, soak
from autotune.search.ledger import Ledger
from autotune.search.runner import TrialRunner
from autotune.spec import Spec
from autotune.stats import Estimate, RoundTable


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

    def confirmed(self, confirmation: Confirmation, runner: TrialRunner) -> dict[str, Any] | None:
        """The first of the ranking that is faster beyond doubt and passes every gate and the soak; else the baseline.

        None when there was not one complete round.
        """
        table = confirmation.table()
        if table is None:
            return None
        for config in confirmation.ranking():
            speedup = confirmation.speedup(config)
            if speedup.value < 1 / TIE or (speedup.interval is not None and speedup.interval.low <= 1):
                continue
            checks = self._gates(confirmation, config)
            if all(check.passed for check in checks):
                checks.append(self._soak(runner, config))
                if checks[-1].passed or self._ran_out(checks[-1]):
                    return self._document(confirmation, table, config, speedup, checks)
        baseline = confirmation.baseline
        checks = self._gates(confirmation, baseline)
        return self._document(confirmation, table, baseline, Estimate(1.0, None), checks)

    def _gates(self, confirmation: Confirmation, config: TrainConfig) -> list[Check]:
        runs, baseline_runs = confirmation.runs(config), confirmation.runs(confirmation.baseline)
        return gate_all(runs, baseline_runs, self._spec.stability, self._facts)

    def _soak(self, runner: TrialRunner, config: TrainConfig) -> Check:
        """Train the winner for the steps that the spec asks; a run of an earlier session counts."""
        steps = self._spec.stability.soak_steps
        done = [record.result for record in self._ledger.of_purpose(Purpose.SOAK) if record.result.config == config]
        passed = next((result for result in done if soak(result, steps).passed), None)
        if passed or not steps:
            return soak(passed, steps)
        return soak(self._run_soak(runner, config, steps), steps)

    def _run_soak(self, runner: TrialRunner, config: TrainConfig, steps: int) -> TrialResult | None:
        if self._budget.remaining_s <= 1:
            return None
        runner.phase = Phase.SOAKING
        seed = self._spec.training.seed
        request = TrialRequest(config=config, seed=seed, time_limit_s=0.0, min_steps=steps)
        result = runner.run(request, Purpose.SOAK, deadline_s=self._budget.remaining_s).result
        return None if result.status == "timeout" else result

    def _ran_out(self, check: Check) -> bool:
        """Whether the soak is missing for want of time, not for a fault."""
        return not check.passed and self._budget.remaining_s <= 1

    def _document(
        self,
        confirmation: Confirmation,
        table: RoundTable,
        config: TrainConfig,
        speedup: Estimate,
        checks: list[Check],
    ) -> dict[str, Any]:
        sure = all(check.passed for check in checks) and (
            speedup.interval is not None or config == confirmation.baseline
        )
        baseline = confirmation.baseline
        ours, theirs = confirmation.runs(config), confirmation.runs(baseline)
        return best_document(
            config=config,
            measured=measurement_of_runs(list(ours.values()), table.throughput(config.canonical_json())),
            baseline_config=baseline,
            baseline=measurement_of_runs(list(theirs.values()), table.throughput(baseline.canonical_json())),
            speedup=speedup,
            checks=checks,
            verdict=STABLE if sure else UNCONFIRMED,
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
