"""The stability tests of one study: which runs each gate looks at, and the reference runs that some of them need.

A finalist is compared with plain arithmetic before it wins: the same weights, samples, micro-batches and random numbers
in IEEE fp32, eager and contiguous. Where its loss leaves that of plain arithmetic, two more such runs with other seeds
say how far apart sound runs end up. What computes as the baseline does is not compared: the user trains that way.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from autotune.config import TrainConfig
from autotune.records import Check, Facts, Purpose, TrialRequest, TrialResult, TrialStatus
from autotune.search import gates
from autotune.search.budget import Budget
from autotune.search.figures import figures_of, samples_per_s
from autotune.search.ledger import Ledger
from autotune.search.plain import arithmetic, computes_like, fed_like, reference_of, references_of
from autotune.search.policy import (
    FOR_START_AND_FIRST_STEP_S,
    REFERENCE_SEEDS,
    SEEDS_IN_DOUBT,
    SMALLEST_USEFUL_TEST_S,
    USUAL_STEPS,
)
from autotune.search.runner import TrialRunner
from autotune.spec import Spec

_OF_PRECISION = {
    "finite_gradients",
    "finite_loss",
    "fp16_range",
    "gradient_underflow",
    "loss_against_reference",
    "loss_rise",
    "loss_scale",
    "skipped_steps",
}
_OF_TESTS = (Purpose.PROBE, Purpose.REFERENCE)
_ENDLESS_BLOCKS = 1_000_000

Runs = Mapping[int, TrialResult]
"""Round of the confirmation → run."""


class Stability:
    """Runs what the gates need and has not been run, and asks them. Runs of an earlier session count."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        runner: TrialRunner,
        budget: Budget,
        spec: Spec,
        facts: Facts,
    ) -> None:
        self._ledger = ledger
        self._runner = runner
        self._budget = budget
        self._spec = spec
        self._facts = facts
        self.constraints = spec.parsed_constraints()
        """What the spec asks of every configuration, on knobs and on measures."""
        self._steps = spec.stability.soak_steps or USUAL_STEPS
        self._hung: set[tuple[TrainConfig, int]] = set()

    def needs_reference(self, config: TrainConfig) -> bool:
        baseline = self._ledger.baseline()
        if baseline is not None and computes_like(config, baseline.result.config):
            return False
        return arithmetic(reference_of(config, self._facts)) != arithmetic(config)

    def is_tested(self, config: TrainConfig) -> bool:
        """Whether nothing is missing for the gates on `config`'s arithmetic."""
        probe = self._probe_of(config)
        if not self.needs_reference(config) or (probe is not None and not is_sound(probe)):
            return True
        return probe is not None and len(self._references_of(probe.config)) >= self._seeds_for(probe)

    def _seeds_for(self, probe: TrialResult) -> int:
        """Reference runs that the probe needs, by those on record."""
        if self._fits_nowhere(probe.config):
            return 0
        references, tolerance = self._beside(probe), self._spec.stability.loss_tolerance
        if not references or not gates.needs_other_seeds(probe, references[0], tolerance):
            return 1
        if len(references) < REFERENCE_SEEDS:
            return REFERENCE_SEEDS
        check = gates.loss_against_reference(probe, references, tolerance)
        in_doubt = check.value > max(tolerance, check.limit / 2)
        return SEEDS_IN_DOUBT if in_doubt and self._leaves_time_for_more(references) else REFERENCE_SEEDS

    def _leaves_time_for_more(self, references: Sequence[TrialResult]) -> bool:
        """Whether the share of the tests is enough for runs like these up to the most that there may be."""
        run_s = statistics.fmean(run.wall_s for run in references)
        spent_s = sum(record.result.wall_s for record in self._ledger.records if record.purpose in _OF_TESTS)
        return spent_s + (SEEDS_IN_DOUBT - len(references)) * run_s <= self._budget.tests_s

    def _beside(self, probe: TrialResult) -> list[TrialResult]:
        """The references of a probe, that of its own seed first; none without that one."""
        references = self._references_of(probe.config)
        same_seed = [run for run in references if run.seed == probe.seed]
        return same_seed and [*same_seed, *(run for run in references if run.seed != probe.seed)]

    def test(self, config: TrainConfig) -> None:
        """The probe of `config` and its reference runs, as far as time allows; ends with the first that fails."""
        seed = self._spec.training.seed
        earlier = self._probe_of(config)
        config = earlier.config if earlier else self._fed_as_before(config)
        reference = self._reference(config, seed)
        if not self._fits_nowhere(config) and (reference is None or not is_sound(reference)):
            return
        steps = len(reference.steps.losses) if reference and reference.steps else self._steps
        probe = earlier or self._run(config, Purpose.PROBE, seed, steps)
        if probe is None or not is_sound(probe):
            return
        for other in range(seed + 1, seed + SEEDS_IN_DOUBT):
            if reference is None or self.is_tested(config):
                return
            if self._on_record(reference.config, Purpose.REFERENCE, other) is None:
                self._run(reference.config, Purpose.REFERENCE, other, steps)

    def cost_s(self, config: TrainConfig, step_s: float, reference_step_s: float, start_s: float) -> float:
        """Seconds that `test` will take where the probe's loss stays near that of plain arithmetic, or is known not to.

        `reference_step_s`: of one optimizer step in plain arithmetic; `start_s`: of a run up to the end of its first
        step."""
        if self.is_tested(config):
            return 0.0
        most_s = self._watched_run_s(config)
        probe, references = self._probe_of(config), len(self._references_of(self._fed_as_before(config)))
        probe_s = 0.0 if probe else start_s + min(self._steps * step_s, most_s)
        missing = max((self._seeds_for(probe) if probe else 1) - references, 0)
        return probe_s + missing * (start_s + min(self._steps * reference_step_s, most_s))

    def _fed_as_before(self, config: TrainConfig) -> TrainConfig:
        """`config` with its data coming in as for references on record that compute what its own would: those serve."""
        wanted = arithmetic(reference_of(config, self._facts))
        for record in self._ledger.of_purpose(Purpose.REFERENCE):
            before = record.result.config
            if arithmetic(before) == wanted:
                return fed_like(config, before)
        return config

    def checks(self, config: TrainConfig, runs: Runs, baseline_runs: Runs) -> list[Check]:
        """All gates but the soak's, cheap ones first. `runs`: of the confirmation, like the baseline's."""
        probe = self._probe_of(config)
        seen = [*runs.values(), *([probe] if probe else [])]
        limits = self._spec.stability
        checks = [
            gates.finite_loss(seen),
            gates.memory_headroom(seen, self._facts, limits.memory_headroom),
            gates.host_memory_headroom(seen, self._facts, limits.memory_headroom),
        ]
        if config.num_workers and self._facts.host.shm_bytes:
            checks.append(gates.shm_headroom(seen, self._facts, limits.memory_headroom))
        if self._facts.device.kind == "cuda":
            checks.append(gates.allocator_retries(seen))
        if config.amp_dtype == "fp16":
            checks += [gates.skipped_steps(seen, limits.max_skipped_steps), gates.loss_scale(seen)]
        if runs and {run.config.effective_batch_size for run in baseline_runs.values()} != {
            config.effective_batch_size
        }:
            checks.append(gates.loss_per_sample(runs, baseline_runs, limits.loss_tolerance))
        checks += self._comparison(probe) if self.needs_reference(config) else self._learns(config, seen)
        return checks + self.constraint_checks(config, runs)

    def constraint_checks(self, config: TrainConfig, runs: Runs) -> list[Check]:
        """The spec's own constraints, by runs of the confirmation."""
        figures = figures_of(config, list(runs.values())) if runs and self.constraints else {}
        return [gates.constraint_check(constraint, figures) for constraint in self.constraints if figures]

    def _learns(self, config: TrainConfig, seen: Sequence[TrialResult]) -> list[Check]:
        """Plain arithmetic is what others are compared with; whether it learns shows in its longest run."""
        references = [
            record.result
            for record in self._ledger.of_purpose(Purpose.REFERENCE)
            if record.result.config.effective_batch_size == config.effective_batch_size
        ]
        trained = [run for run in (*seen, *references) if run.steps]
        longest = max(trained, key=lambda run: len(run.steps.losses) if run.steps else 0, default=None)
        return [gates.loss_rise(longest)] if longest else []

    def soak_checks(self, run: TrialResult, steps: int) -> list[Check]:
        """What a soak of at least `steps` optimizer steps showed."""
        checks = [gates.soak(run, steps)]
        if is_sound(run):
            checks += [
                gates.loss_spikes([run]),
                gates.memory_growth(run, self._facts, self._spec.stability.memory_headroom),
            ]
        if run.config.amp_dtype == "fp16":
            checks.append(gates.skipped_steps([run], self._spec.stability.max_skipped_steps))
        # The same gates as of shorter runs, under names of their own.
        return [
            check if check.name.startswith("soak") else check.model_copy(update={"name": f"soak_{check.name}"})
            for check in checks
        ]

    def missing(self, config: TrainConfig) -> Check | None:
        """A failed check where the budget ended before `test` did; None when nothing is missing."""
        if self.is_tested(config):
            return None
        probe = self._probe_of(config)
        done, needed = len(self._references_of(config)), self._seeds_for(probe) if probe else 1
        detail = self._why_no_reference(config) or "the budget ended before the reference runs of the stability tests"
        return Check(name="reference_runs", passed=False, value=done, limit=needed, detail=detail)

    def _why_no_reference(self, config: TrainConfig) -> str:
        """How the last of `config`'s reference runs failed; empty where one came to its end."""
        family = set(references_of(config, self._facts))
        runs = [record.result for record in self._ledger.of_purpose(Purpose.REFERENCE)]
        failed = [run for run in runs if run.config in family and not is_sound(run)]
        if not failed or self._references_of(config):
            return ""
        reason = failed[-1].failure.reason if failed[-1].failure else str(failed[-1].status)
        return f"plain fp32, which the stability tests compare with, fails itself: {reason}"

    def _comparison(self, probe: TrialResult | None) -> list[Check]:
        if probe is None:
            return []
        references = self._beside(probe)
        same_seed = next(iter(references), None)
        gradients = probe.first_gradient, same_seed.first_gradient if same_seed else None
        checks = [_ended_well(probe), gates.finite_gradients([probe])]
        if self._fits_nowhere(probe.config):
            detail = "not tested against fp32, which does not fit into memory"
            checks.append(Check(name="reference_runs", passed=True, value=0, limit=1, detail=detail, conclusive=False))
        if probe.config.amp_dtype == "fp16":
            activation = same_seed.largest_activation if same_seed else None
            checks.append(gates.fp16_range(probe.largest_activation, activation))
        if probe.config.amp_dtype != "none":
            checks.append(gates.gradient_underflow(*gradients))
        checks += [gates.first_gradient_cosine(*gradients), gates.loss_rise(probe), gates.loss_spikes([probe])]
        if references and is_sound(probe):
            checks.append(gates.loss_against_reference(probe, references, self._spec.stability.loss_tolerance))
        return checks

    def _reference(self, config: TrainConfig, seed: int) -> TrialResult | None:
        """The reference run of the probe's own seed; with smaller micro-batches where fp32 does not fit."""
        for reference in references_of(config, self._facts):
            run = self._on_record(reference, Purpose.REFERENCE, seed) or self._run(
                reference, Purpose.REFERENCE, seed, self._steps
            )
            if run is None or run.status is not TrialStatus.OOM:
                return run
        return None

    def _run(self, config: TrainConfig, purpose: Purpose, seed: int, steps: int) -> TrialResult | None:
        """A watched run of at most `steps` optimizer steps; None when there is no time for one."""
        limit_s = min(self._watched_run_s(config), self._budget.remaining_s)
        if limit_s < SMALLEST_USEFUL_TEST_S or (config, seed) in self._hung:
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
        deadline_s = min(2 * limit_s + FOR_START_AND_FIRST_STEP_S, self._budget.remaining_s)
        result = self._runner.run(request, purpose, deadline_s=deadline_s).result
        if not_cut(result):
            return result
        self._hung.add((config, seed))
        return None

    def _watched_run_s(self, config: TrainConfig) -> float:
        """Training seconds of such a run of `config`, taken to start as runs of the search did, and to be as fast as
        the baseline once a batch is ready."""
        runs = [record.result for record in self._ledger.measured()]
        starts_s = [run.wall_s - run.training_s + run.warm_up.first_step_s for run in runs if run.warm_up]
        baseline = self._ledger.baseline()
        per_s = _demand_per_s(baseline.result) if baseline else math.inf
        return self._budget.watched_run_s(
            statistics.median(starts_s) if starts_s else 0.0, config.effective_batch_size / per_s
        )

    def _fits_nowhere(self, config: TrainConfig) -> bool:
        """Whether plain arithmetic has run out of memory however small its micro-batches were."""
        seed = self._spec.training.seed
        runs = [self._on_record(each, Purpose.REFERENCE, seed) for each in references_of(config, self._facts)]
        return all(run is not None and run.status is TrialStatus.OOM for run in runs)

    def _on_record(self, config: TrainConfig, purpose: Purpose, seed: int) -> TrialResult | None:
        runs = (record.result for record in self._ledger.of_purpose(purpose))
        return next((run for run in runs if run.config == config and run.seed == seed and not_cut(run)), None)

    def _probe_of(self, config: TrainConfig) -> TrialResult | None:
        """That of a configuration with the same arithmetic."""
        probes = (record.result for record in self._ledger.of_purpose(Purpose.PROBE))
        wanted = arithmetic(config)
        return next((probe for probe in probes if arithmetic(probe.config) == wanted and not_cut(probe)), None)

    def _references_of(self, config: TrainConfig) -> Sequence[TrialResult]:
        """Those that came to an end, the probe's own seed first."""
        records = [record for record in self._ledger.of_purpose(Purpose.REFERENCE) if is_sound(record.result)]
        for reference in references_of(config, self._facts):
            found = [record.result for record in records if record.result.config == reference]
            if found:
                return sorted({run.seed: run for run in found}.values(), key=lambda run: run.seed)
        return []


def _ended_well(probe: TrialResult) -> Check:
    detail = probe.failure.reason if probe.failure else ""
    return Check(name="probe", passed=is_sound(probe), value=float(is_sound(probe)), limit=1, detail=detail)


def blames_precision(check: Check) -> bool:
    """Whether what `check` refused comes of low precision, whatever the batch size: not so memory."""
    return check.name in _OF_PRECISION


def is_sound(run: TrialResult) -> bool:
    """Whether it trained to its end."""
    return run.status is TrialStatus.OK


def _demand_per_s(run: TrialResult) -> float:
    return run.rates.demand_per_s if run.rates else samples_per_s(run)


def not_cut(run: TrialResult) -> bool:
    return run.status is not TrialStatus.TIMEOUT
