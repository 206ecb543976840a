"""Optuna's tree-structured Parzen estimator: more trials than a Gaussian process, a few milliseconds each to ask."""

from __future__ import annotations

from optuna.samplers import BaseSampler, TPESampler

from autotune.search.strategies.options import build_with
from autotune.search.strategies.strategy import Learning, Strategy, StrategyContext


def build(context: StrategyContext) -> BaseSampler:
    return build_with(TPESampler, context.args, seed=context.seed)


STRATEGY = Strategy(name="tpe", build=build, learns_failures_as=Learning.PRUNED)
