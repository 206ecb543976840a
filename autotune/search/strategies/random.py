"""Uniformly at random: what every other strategy has to beat."""

from __future__ import annotations

from optuna.samplers import BaseSampler, RandomSampler

from autotune.search.strategies.options import build_with
from autotune.search.strategies.strategy import Learning, Strategy, StrategyContext


def build(context: StrategyContext) -> BaseSampler:
    return build_with(RandomSampler, context.args, seed=context.seed)


STRATEGY = Strategy(name="random", build=build, learns_failures_as=Learning.PRUNED)
