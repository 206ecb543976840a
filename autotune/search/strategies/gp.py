"""Optuna's Gaussian process over the ordered values: the fewest trials of all built-in samplers on such spaces."""

from __future__ import annotations

import optuna
from optuna.samplers import BaseSampler, GPSampler

from autotune.search.strategies.options import build_with
from autotune.search.strategies.strategy import Learning, Strategy, StrategyContext

_STARTUP_TRIALS = 5
"""The baseline and the expert's seeds are start enough; Optuna's own default would add random ones."""


def build(context: StrategyContext) -> BaseSampler:
    ours = {"seed": context.seed, "n_startup_trials": _STARTUP_TRIALS, "warn_independent_sampling": False}
    return build_with(GPSampler, context.args, **ours)


def warm_up() -> None:
    """Sample once in a toy study: the sampler imports SciPy, and PyTorch for its linear algebra, at its first fit."""
    study = optuna.create_study(sampler=GPSampler(seed=0, n_startup_trials=1), direction="maximize")
    distributions: dict[str, optuna.distributions.BaseDistribution] = {"x": optuna.distributions.IntDistribution(0, 3)}
    for value in (0.0, 1.0):
        study.tell(study.ask(distributions), value)
    study.ask(distributions)


STRATEGY = Strategy(name="gp", build=build, learns_failures_as=Learning.WORST_VALUE, warm_up=warm_up)
