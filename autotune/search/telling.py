"""How Optuna is asked for a trial, and told what came of it: the same way in a study and in a replay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import optuna
from optuna.trial import TrialState

from autotune.config import TrainConfig
from autotune.records import Facts, TrialResult
from autotune.search.distinct import DistinctSampler
from autotune.search.figures import has_figure
from autotune.search.performance import OBSERVATION, PREDICTED, Observation, observe
from autotune.search.performance.learn_loading import learn_loading
from autotune.search.seeds import expert_seeds
from autotune.search.space import Space
from autotune.search.strategies import Learning, Strategy, StrategyContext
from autotune.stats.sustained import sustained_per_s

_FEASIBLE, _INFEASIBLE = -1.0, 1.0
_LONGEST_REASON = 500
"""Characters; the whole of it stands in the trial's record."""


class NothingWorthTrying(Exception):
    """All that has not been tried is likely to run out of memory, or promises too little: time is better spent on
    confirming what was."""


def sampler_of(
    strategy: Strategy, context: StrategyContext, *, seeded: bool | None = None, least_gain: float = 0.0
) -> DistinctSampler:
    """The sampler of `strategy`, which proposes the baseline first, then the expert's seeds, and nothing twice.

    `seeded`: whether the expert's seeds are proposed; None: unless the strategy begins by itself. `least_gain`:
    ln(speed-up) below which a strategy that knows what is left to gain makes no more trials.
    """
    seeded = not strategy.begins_by_itself if seeded is None else seeded
    planned = [context.space.baseline, *(expert_seeds(context.space) if seeded else ())]
    waits = partial(loading_waits, space=context.space, facts=context.facts)
    return DistinctSampler(strategy.build(context), context.space, planned, context.seed, waits, least_gain)


def loading_waits(study: optuna.Study, *, space: Space, facts: Facts) -> bool:
    """Whether the trials of `study` have shown that loading waits, so that more processes than cores can help."""
    told = [
        (space.config_at(trial.params), Observation.from_dict(trial.user_attrs[OBSERVATION]))
        for trial in study.get_trials(deepcopy=False)
        if OBSERVATION in trial.user_attrs and trial.params.keys() == space.distributions.keys()
    ]
    figures = [(config, seen) for config, seen in told if seen.has_figure]
    threads, on_cpu = facts.host.default_num_threads, facts.device.kind == "cpu"
    return learn_loading(figures, facts.host.usable_cores, overlaps=not on_cpu, threads=threads).waits


def ask(study: optuna.Study, sampler: DistinctSampler, space: Space) -> tuple[optuna.Trial, TrainConfig]:
    """The next trial, and the configuration that it proposes. Raises NothingWorthTrying."""
    if sampler.has_nothing_worth_trying(study):
        raise NothingWorthTrying
    trial = study.ask(dict(space.distributions))
    config = space.config_at(trial.params)
    predicted = sampler.prediction(config)
    if predicted is not None:
        trial.set_user_attr(PREDICTED, predicted)
    return trial, config


def tell(
    study: optuna.Study,
    trial: optuna.Trial,
    result: TrialResult,
    *,
    learning: Learning,
    worst: float | None,
    violations: Sequence[float] = (),
) -> None:
    """What `result` says about its configuration, in the terms in which the strategy learns from failures.

    `worst`: the lowest throughput so far that breaks no constraint, None before any. `violations`: of the spec's
    constraints on measures, positive where one is broken. What breaks one, like what failed, gets no value that could
    make it the study's best, which Optuna's dashboard and `study.best_trial` would take it for; its own figures stand
    in the trial's user attributes.
    """
    trial.set_user_attr(OBSERVATION, observe(result).to_dict())
    for name, figure in _attributes(result).items():
        trial.set_user_attr(name, figure)
    feasible = has_figure(result)
    # Optuna reads constraints by position and wants the same ones on all trials; a crash may have come in between.
    values = {"stable": _FEASIBLE if feasible else _INFEASIBLE}
    values |= {f"constraint_{n}": violation if feasible else _INFEASIBLE for n, violation in enumerate(violations)}
    for name, value in values.items():
        if name not in trial.constraints:
            trial.set_constraint(name, value)
    if feasible and max(violations, default=0.0) <= 0:
        study.tell(trial.number, sustained_per_s(result))
    elif worst is not None and (feasible or learning is Learning.WORST_VALUE):
        study.tell(trial.number, math.nextafter(worst, 0.0))
    else:
        study.tell(trial.number, state=TrialState.PRUNED)


def _attributes(result: TrialResult) -> dict[str, str | float]:
    """What the trial came to, for whoever looks at the study with Optuna's tools."""
    told: dict[str, str | float] = {"status": str(result.status)}
    if has_figure(result):
        told["samples_per_s"] = sustained_per_s(result)
    if result.memory:
        told["peak_memory_bytes"] = result.memory.peak_bytes
    if result.failure:
        told["reason"] = result.failure.reason[:_LONGEST_REASON]
    return told
