"""Uniformly at random: what every other strategy has to beat."""

from __future__ import annotations

from optuna.samplers import BaseSampler, RandomSampler

from autotune.search.space import Space
from autotune.search.strategies.strategy import Learning, Strategy


def build(_space: Space, seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


STRATEGY = Strategy(name="random", build=build, learns_failures_as=Learning.PRUNED)
