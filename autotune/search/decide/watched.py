"""The watched runs of the stability tests: which of them a configuration needs, has had, and gets next.

A finalist is compared with plain arithmetic before it wins: the same weights, samples, micro-batches and random numbers
in IEEE fp32, eager and contiguous. Where its loss leaves that of plain arithmetic, two more such runs with other seeds
say how far apart sound runs end up. What computes as the baseline does is not compared: the user trains that way.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from autotune.config import TrainConfig
from autotune.records import Check, Purpose, TrialRequest, TrialResult, TrialStatus
from autotune.search import gates
from autotune.search.decide.actions import Test
from autotune.search.decide.study import StudySoFar, not_cut
from autotune.search.figures import samples_per_s
from autotune.search.plain import arithmetic, computes_like, fed_like, reference_of, references_of
from autotune.search.policy import (
    FOR_START_AND_FIRST_STEP_S,
    REFERENCE_SEEDS,
    SEEDS_IN_DOUBT,
    SMALLEST_USEFUL_TEST_S,
    SPARE,
    USUAL_STEPS,
)

_ENDLESS_BLOCKS = 1_000_000


class Watched:
    """The recorded watched runs, and those to come."""

    def __init__(self, study: StudySoFar) -> None:
        self._study = study
        self._steps = study.spec.stability.soak_steps or USUAL_STEPS
        self._seed = study.spec.training.seed
        self._tolerance = study.spec.stability.loss_tolerance

    def needs_reference(self, config: TrainConfig) -> bool:
        baseline = self._study.baseline_trial
        if baseline is not None and computes_like(config, baseline.result.config):
            return False
        return arithmetic(reference_of(config, self._study.facts)) != arithmetic(config)

    def is_tested(self, config: TrainConfig) -> bool:
        """Whether the gates on the arithmetic of `config` have all the runs they need."""
        probe = self.probe_of(config)
        if not self.needs_reference(config) or (probe is not None and not is_sound(probe)):
            return True
        return probe is not None and len(self._references_of(probe.config)) >= self._seeds_for(probe)

    def next_run(self, config: TrainConfig) -> Test | None:
        """The next test run of `config`. None if all have run, one has failed, or there is no time for another."""
        earlier = self.probe_of(config)
        config = earlier.config if earlier else self._fed_as_before(config)
        reference = self._reference_of(config)
        if isinstance(reference, Test):
            return reference
        if not self.fits_nowhere(config) and (reference is None or not is_sound(reference)):
            return None
        steps = len(reference.steps.losses) if reference and reference.steps else self._steps
        if earlier is None:
            return self._run(config, Purpose.PROBE, self._seed, steps)
        if reference is None or self.is_tested(config):
            return None
        others = range(self._seed + 1, self._seed + SEEDS_IN_DOUBT)
        missing = [other for other in others if self._on_record(reference.config, other) is None]
        runs = (self._run(reference.config, Purpose.REFERENCE, other, steps) for other in missing)
        return next((run for run in runs if run is not None), None)

    def cost_s(self, config: TrainConfig) -> float:
        """Seconds that the tests of `config` will take where the probe's loss stays near that of plain arithmetic, or
        is known not to. Plain arithmetic is taken to be as fast as the baseline."""
        costs, baseline = self._study.costs, self._study.baseline
        step_s = costs.busy_step_s(config)
        plain_step_s = costs.busy_step_s(baseline) * config.effective_batch_size / baseline.effective_batch_size
        return SPARE * self.runs_s(config, step_s, plain_step_s, costs.start_s(config))

    def runs_s(self, config: TrainConfig, step_s: float, reference_step_s: float, start_s: float) -> float:
        """`reference_step_s`: of one optimizer step in plain arithmetic; `start_s`: of a run up to the end of its first
        step."""
        if self.is_tested(config):
            return 0.0
        most_s = self._run_s(config)
        probe, references = self.probe_of(config), len(self._references_of(self._fed_as_before(config)))
        probe_s = 0.0 if probe else start_s + min(self._steps * step_s, most_s)
        missing = max((self._seeds_for(probe) if probe else 1) - references, 0)
        return probe_s + missing * (start_s + min(self._steps * reference_step_s, most_s))

    def missing(self, config: TrainConfig) -> Check | None:
        """A failed check if the budget ended before the tests did. None if nothing is missing."""
        if self.is_tested(config):
            return None
        probe = self.probe_of(config)
        done, needed = len(self._references_of(config)), self._seeds_for(probe) if probe else 1
        detail = self._why_no_reference(config) or "the budget ended before the reference runs of the stability tests"
        return Check(name="reference_runs", passed=False, value=done, limit=needed, detail=detail)

    def probe_of(self, config: TrainConfig) -> TrialResult | None:
        """The probe of a configuration with the same arithmetic."""
        probes = (record.result for record in self._study.of_purpose(Purpose.PROBE))
        wanted = arithmetic(config)
        return next((probe for probe in probes if arithmetic(probe.config) == wanted and not_cut(probe)), None)

    def beside(self, probe: TrialResult) -> list[TrialResult]:
        """The references of a probe, that of its own seed first. None without that one."""
        references = self._references_of(probe.config)
        same_seed = [run for run in references if run.seed == probe.seed]
        return same_seed and [*same_seed, *(run for run in references if run.seed != probe.seed)]

    def fits_nowhere(self, config: TrainConfig) -> bool:
        """Whether the reference ran out of memory with the smallest micro-batches too."""
        runs = [self._on_record(each, self._seed) for each in references_of(config, self._study.facts)]
        return all(run is not None and run.status is TrialStatus.OOM for run in runs)

    def _seeds_for(self, probe: TrialResult) -> int:
        """Number of reference runs that the probe needs, by the recorded ones."""
        if self.fits_nowhere(probe.config):
            return 0
        references = self.beside(probe)
        if not references or not gates.needs_other_seeds(probe, references[0], self._tolerance):
            return 1
        if len(references) < REFERENCE_SEEDS:
            return REFERENCE_SEEDS
        check = gates.loss_against_reference(probe, references, self._tolerance)
        in_doubt = check.value > max(self._tolerance, check.limit / 2)
        return SEEDS_IN_DOUBT if in_doubt and self._leaves_time_for_more(references) else REFERENCE_SEEDS

    def _leaves_time_for_more(self, references: Sequence[TrialResult]) -> bool:
        """Whether the tests' share of time is enough for the largest number of such runs."""
        run_s = statistics.fmean(run.wall_s for run in references)
        spent_s = sum(record.result.wall_s for record in self._study.watched)
        return spent_s + (SEEDS_IN_DOUBT - len(references)) * run_s <= self._study.budget.tests_s

    def _reference_of(self, config: TrainConfig) -> TrialResult | Test | None:
        """The reference run of the probe's own seed, with smaller micro-batches where fp32 does not fit; or the run
        that is to be it. None where there is no time for one, or none fits."""
        for reference in references_of(config, self._study.facts):
            found = self._on_record(reference, self._seed)
            if found is None:
                return self._run(reference, Purpose.REFERENCE, self._seed, self._steps)
            if found.status is not TrialStatus.OOM:
                return found
        return None

    def _run(self, config: TrainConfig, purpose: Purpose, seed: int, steps: int) -> Test | None:
        """A watched run of at most `steps` optimizer steps. None if there is no time for one, or it has hung."""
        remaining_s = self._study.budget.remaining_s
        limit_s = min(self._run_s(config), remaining_s - self._study.costs.start_s(config))
        if limit_s < SMALLEST_USEFUL_TEST_S or (config, seed) in self._study.hung:
            return None
        request = TrialRequest(
            config=config,
            seed=seed,
            time_limit_s=limit_s,
            min_blocks=_ENDLESS_BLOCKS,
            max_blocks=_ENDLESS_BLOCKS,
            max_steps=max(steps, 1),
            watch_training=True,
            in_any_process=True,
        )
        deadline_s = min(2 * limit_s + FOR_START_AND_FIRST_STEP_S, remaining_s)
        return Test(request=request, purpose=purpose, deadline_s=deadline_s)

    def _run_s(self, config: TrainConfig) -> float:
        """Training seconds of such a run of `config`, taken to start as runs of the search did, and to be as fast as
        the baseline once a batch is ready."""
        runs = [record.result for record in self._study.measured]
        starts_s = [run.wall_s - run.training_s + run.warm_up.first_step_s for run in runs if run.warm_up]
        baseline = self._study.baseline_trial
        per_s = _demand_per_s(baseline.result) if baseline else math.inf
        return self._study.budget.watched_run_s(
            statistics.median(starts_s) if starts_s else 0.0, config.effective_batch_size / per_s
        )

    def _fed_as_before(self, config: TrainConfig) -> TrainConfig:
        """`config` with its data arriving as in recorded references that compute the same, so that these can be used
        again."""
        wanted = arithmetic(reference_of(config, self._study.facts))
        for record in self._study.of_purpose(Purpose.REFERENCE):
            before = record.result.config
            if arithmetic(before) == wanted:
                return fed_like(config, before)
        return config

    def _why_no_reference(self, config: TrainConfig) -> str:
        """How the last reference run of `config` failed. Empty if one ended well."""
        family = set(references_of(config, self._study.facts))
        runs = [record.result for record in self._study.of_purpose(Purpose.REFERENCE)]
        failed = [run for run in runs if run.config in family and not is_sound(run)]
        if not failed or self._references_of(config):
            return ""
        reason = failed[-1].failure.reason if failed[-1].failure else str(failed[-1].status)
        return f"the fp32 reference run of the stability tests fails: {reason}"

    def _on_record(self, reference: TrainConfig, seed: int) -> TrialResult | None:
        runs = (record.result for record in self._study.of_purpose(Purpose.REFERENCE))
        return next((run for run in runs if run.config == reference and run.seed == seed and not_cut(run)), None)

    def _references_of(self, config: TrainConfig) -> Sequence[TrialResult]:
        """The references that ended, that of the probe's own seed first."""
        records = [record for record in self._study.of_purpose(Purpose.REFERENCE) if is_sound(record.result)]
        for reference in references_of(config, self._study.facts):
            found = [record.result for record in records if record.result.config == reference]
            if found:
                return sorted({run.seed: run for run in found}.values(), key=lambda run: run.seed)
        return []


def is_sound(run: TrialResult) -> bool:
    """Whether it trained to its end."""
    return run.status is TrialStatus.OK


def _demand_per_s(run: TrialResult) -> float:
    return run.rates.demand_per_s if run.rates else samples_per_s(run)
