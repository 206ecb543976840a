"""What is left to gain: how much faster than the best so far an untried configuration may be, by the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autotune.config import TrainConfig
from autotune.search.performance.encoding import Encoded
from autotune.search.performance.model import PerformanceModel
from autotune.search.performance.process import Array

_DRAWS = 512
_SMALLEST = 1e-12
"""Variances below it are rounding errors of a covariance that is known only as a difference."""


def left_to_gain(
    model: PerformanceModel, leaders: Sequence[TrainConfig], candidates: Sequence[TrainConfig], seed: int
) -> float:
    """E[ln(best of `candidates` ÷ best of `leaders`)] where that is above 0, if all of them were known: the most that
    any number of further trials can bring on average. `leaders`: the best that were tried.

    The expected simple regret under joint draws from the posterior; Wilson, "Stopping Bayesian Optimization with
    Probabilistic Regret Bounds" (NeurIPS 2024), draws the same.
    """
    if not candidates:
        return 0.0
    configs = [*leaders, *candidates]
    encoded: Encoded = model.encoding.encode(configs)
    own = [model.own(config) for config in configs]
    mean = model.predict(encoded).mean + np.array([mean for mean, _ in own])
    covariance = model.covariance(encoded, encoded) + np.diag([variance for _, variance in own])
    draws = mean + np.random.default_rng(seed).standard_normal((_DRAWS, len(configs))) @ _root(covariance).T
    gains = draws[:, len(leaders) :].max(axis=1) - draws[:, : len(leaders)].max(axis=1)
    return float(np.maximum(gains, 0.0).mean())


def _root(covariance: Array) -> Array:
    """A matrix whose product with its own transpose is `covariance`."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, _SMALLEST)))
