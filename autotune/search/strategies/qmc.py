"""Optuna's quasi-Monte Carlo: as blind as random, but evenly spread."""

from __future__ import annotations

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, QMCSampler

from autotune.search.strategies.options import build_with
from autotune.search.strategies.strategy import Learning, Strategy, StrategyContext


def build(context: StrategyContext) -> BaseSampler:
    ours = {"seed": context.seed, "scramble": True, "warn_independent_sampling": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # who asks for it by name has chosen it
        return build_with(QMCSampler, context.args, **ours)


STRATEGY = Strategy(name="qmc", build=build, learns_failures_as=Learning.PRUNED)
