"""Which gates apply to a configuration, and which of its runs they look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autotune.config import TrainConfig
from autotune.records import Check, Purpose, TrialResult
from autotune.search import gates
from autotune.search.decide.study import StudySoFar
from autotune.search.decide.watched import Watched, is_sound
from autotune.search.figures import figures_of
from autotune.spec.durations import usual_duration

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

Runs = Mapping[int, TrialResult]
"""Round of the confirmation → run."""


def checks_of(study: StudySoFar, config: TrainConfig, runs: Runs, baseline_runs: Runs) -> list[Check]:
    """All gates except the soak's, cheap ones first. `runs`: those of the confirmation, like the baseline's."""
    watched, facts, limits = Watched(study), study.facts, study.spec.stability
    probe = watched.probe_of(config)
    seen = [*runs.values(), *([probe] if probe else [])]
    checks = [
        gates.finite_loss(seen),
        gates.memory_headroom(seen, facts, limits.memory_headroom),
        gates.host_memory_headroom(seen, facts, limits.memory_headroom),
    ]
    if config.num_workers and facts.host.shm_bytes:
        checks.append(gates.shm_headroom(seen, facts, limits.memory_headroom))
    if facts.device.kind == "cuda":
        checks.append(gates.allocator_retries(seen))
    if config.amp_dtype == "fp16":
        checks += [gates.skipped_steps(seen, limits.max_skipped_steps), gates.loss_scale(seen)]
    if runs and {run.config.effective_batch_size for run in baseline_runs.values()} != {config.effective_batch_size}:
        checks.append(gates.loss_per_sample(runs, baseline_runs, limits.loss_tolerance))
    if not watched.needs_reference(config):
        checks += _learns(study, config, seen)
    elif probe is not None:
        checks += _comparison(watched, probe, limits.loss_tolerance)
    return checks + constraint_checks(study, config, runs)


def constraint_checks(study: StudySoFar, config: TrainConfig, runs: Runs) -> list[Check]:
    """The spec's own constraints, checked on the runs of the confirmation."""
    figures = figures_of(config, list(runs.values())) if runs and study.constraints else {}
    return [gates.constraint_check(constraint, figures) for constraint in study.constraints if figures]


def soak_checks(study: StudySoFar, run: TrialResult | None) -> list[Check]:
    """What a soak showed. None if there was none."""
    limits = study.spec.stability
    checks = [_with_advice(study, gates.soak(run, limits.soak_steps), run)]
    if run and is_sound(run):
        checks += [gates.loss_spikes([run]), gates.memory_growth(run, study.facts, limits.memory_headroom)]
    if run and run.config.amp_dtype == "fp16":
        checks.append(gates.skipped_steps([run], limits.max_skipped_steps))
    # The same gates as of shorter runs, under names of their own.
    return [
        check if check.name.startswith("soak") else check.model_copy(update={"name": f"soak_{check.name}"})
        for check in checks
    ]


def _with_advice(study: StudySoFar, check: Check, run: TrialResult | None) -> Check:
    """With the budget that would have been enough, where a soak ended short."""
    if check.passed or run is None or not is_sound(run):
        return check
    needed_s = run.wall_s * (check.limit / max(check.value, 1.0) - 1)
    enough = usual_duration(study.budget.total_s + needed_s)
    return check.model_copy(update={"detail": f"{check.detail}; use at least {enough}"})


def blames_precision(check: Check) -> bool:
    """Whether low precision caused the failure of `check`, whatever the batch size. Memory is never such a cause."""
    return check.name in _OF_PRECISION


def _learns(study: StudySoFar, config: TrainConfig, seen: Sequence[TrialResult]) -> list[Check]:
    """Whether the reference learns, judged by its longest run: others are compared with it."""
    references = [
        record.result
        for record in study.of_purpose(Purpose.REFERENCE)
        if record.result.config.effective_batch_size == config.effective_batch_size
    ]
    trained = [run for run in (*seen, *references) if run.steps]
    longest = max(trained, key=lambda run: len(run.steps.losses) if run.steps else 0, default=None)
    return [gates.loss_rise(longest)] if longest else []


def _comparison(watched: Watched, probe: TrialResult, tolerance: float) -> list[Check]:
    references = watched.beside(probe)
    same_seed = next(iter(references), None)
    gradients = probe.first_gradient, same_seed.first_gradient if same_seed else None
    checks = [_ended_well(probe), gates.finite_gradients([probe])]
    if watched.fits_nowhere(probe.config):
        detail = "not compared with fp32, which does not fit into memory"
        checks.append(Check(name="reference_runs", passed=True, value=0, limit=1, detail=detail, conclusive=False))
    if probe.config.amp_dtype == "fp16":
        activation = same_seed.largest_activation if same_seed else None
        checks.append(gates.fp16_range(probe.largest_activation, activation))
    if probe.config.amp_dtype != "none":
        checks.append(gates.gradient_underflow(*gradients))
    checks += [gates.first_gradient_cosine(*gradients), gates.loss_rise(probe), gates.loss_spikes([probe])]
    if references and is_sound(probe):
        checks.append(gates.loss_against_reference(probe, references, tolerance))
    return checks


def _ended_well(probe: TrialResult) -> Check:
    detail = probe.failure.reason if probe.failure else ""
    return Check(name="probe", passed=is_sound(probe), value=float(is_sound(probe)), limit=1, detail=detail)
