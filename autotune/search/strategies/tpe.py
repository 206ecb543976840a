"""Optuna's tree-structured Parzen estimator: more trials than a Gaussian process, a few milliseconds each to ask."""

from __future__ import annotations

from optuna.samplers import BaseSampler, TPESampler

from autotune.search.space import Space
from autotune.search.strategies.strategy import Learning, Strategy


def build(_space: Space, seed: int) -> BaseSampler:
    return TPESampler(seed=seed)


STRATEGY = Strategy(name="tpe", build=build, learns_failures_as=Learning.PRUNED)
