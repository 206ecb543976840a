"""The soak: the one that is to be emitted trains on, for the steps that the spec asks or longer."""

from __future__ import annotations

import dataclasses

from autotune.config import TrainConfig
from autotune.records import Purpose, TrialRequest, TrialResult
from autotune.search.decide.actions import Soak
from autotune.search.decide.study import StudySoFar, not_cut
from autotune.search.gates import soak
from autotune.search.policy import SHORTEST_SOAK_S, SOAK_SHARE


def soak_of(study: StudySoFar, config: TrainConfig) -> TrialResult | Soak | None:
    """The soak of `config`, or the run that is to be it. A run of an earlier session counts, one that failed above all.
    None where the spec asks for no soak, or the budget has no time for one. One that the budget's end made short has
    shown what it has shown."""
    steps = study.spec.stability.soak_steps
    if not steps:
        return None
    passed = next((run for run in _on_record(study, config) if soak(run, steps).passed), None)
    known = failed_soak(study, config) or passed
    if known:
        return known
    now = [record for record in study.of_this_session(Purpose.SOAK) if record.result.config == config]
    if not now:
        return _run(study, config)
    left = dataclasses.replace(study.budget, elapsed_s=now[-1].elapsed_s).remaining_s
    return now[-1].result if not_cut(now[-1].result) or left > SHORTEST_SOAK_S else None


def failed_soak(study: StudySoFar, config: TrainConfig) -> TrialResult | None:
    return next((run for run in _on_record(study, config) if run.failure), None)


def _on_record(study: StudySoFar, config: TrainConfig) -> list[TrialResult]:
    """Those that no budget has cut short."""
    runs = (record.result for record in study.of_purpose(Purpose.SOAK))
    return [run for run in runs if run.config == config and not_cut(run)]


def _run(study: StudySoFar, config: TrainConfig) -> Soak | None:
    """It ends by itself before the budget does: what it has shown by then counts."""
    steps, step_s = _steps(study, config), study.costs.busy_step_s(config)
    training_s = study.budget.remaining_s - study.costs.soak_s(config, 1)
    if study.budget.remaining_s <= SHORTEST_SOAK_S or training_s < min(SHORTEST_SOAK_S, steps * step_s):
        return None
    request = TrialRequest(
        config=config, seed=study.spec.training.seed, time_limit_s=0.0, min_steps=steps, ends_after_s=training_s
    )
    return Soak(request=request, deadline_s=study.budget.remaining_s)


def _steps(study: StudySoFar, config: TrainConfig) -> int:
    """Those of the spec, or as many as take the loader past the end of its epoch, where that costs little."""
    steps, samples = study.spec.stability.soak_steps, study.facts.workload.dataset_samples
    if samples is None:
        return steps
    wanted = samples // config.effective_batch_size + 2
    cost_s = study.costs.soak_s(config, wanted)
    affordable = cost_s < min(SOAK_SHARE * study.budget.total_s, study.budget.remaining_s / 2)
    return max(steps, wanted) if affordable else steps
