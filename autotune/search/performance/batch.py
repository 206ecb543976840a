"""Several trials at once: each is chosen as if those before it, and all in flight, had the predicted result.

The predictions then stay the same and the doubt around them falls: the "believer" of Ginsbourger, Le Riche & Carraro,
"Kriging Is Well-Suited to Parallelize Optimization" (2010).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from autotune.search.performance.encoding import Encoded
from autotune.search.performance.model import PerformanceModel
from autotune.search.performance.process import Array

_SHORTLIST = 128
"""Candidates that are looked at together: what others are expected to tell makes none more promising than it was."""
_GUESS_ERROR = 0.05
"""Relative error of a trial that is taken to come out as predicted."""
_LEAST_VARIANCE = 1e-10

Score = Callable[[Array], Array]
"""How promising each row is, by the doubt about it; -inf where it must not be chosen."""


def choose(
    model: PerformanceModel, encoded: Encoded, doubt: Array, score: Score, pending: Encoded, count: int
) -> list[int]:
    """At most `count` rows of `encoded`, the most promising first. `doubt`: that of each row before `pending` ends."""
    scores = score(doubt)
    best_first = np.argsort(-scores, kind="stable")[:_SHORTLIST]
    rows = best_first[np.isfinite(scores[best_first])]
    chosen = [0] if len(rows) else []
    if count > 1 or len(pending):
        chosen = _among(model, encoded.take(rows), doubt[rows], _of_some(score, doubt, rows), pending, count)
    return [int(rows[place]) for place in chosen]


def _among(
    model: PerformanceModel, encoded: Encoded, doubt: Array, score: Score, pending: Encoded, count: int
) -> list[int]:
    noise = model.noise**2 + _GUESS_ERROR**2
    shared = _shared(model, encoded, pending, noise)
    covariance = model.covariance(encoded, encoded) - shared.T @ shared
    variance = doubt**2 - (shared**2).sum(axis=0)
    chosen: list[int] = []
    while len(chosen) < min(count, len(encoded)):
        scores = score(np.sqrt(np.maximum(variance, _LEAST_VARIANCE)))
        scores[chosen] = -np.inf
        chosen.append(int(np.argmax(scores)))
        column = covariance[:, chosen[-1]]
        learnt = column / (column[chosen[-1]] + noise)
        variance = variance - learnt * column
        covariance = covariance - np.outer(learnt, column)
    return chosen


def _of_some(score: Score, doubt: Array, rows: NDArray[np.intp]) -> Score:
    """`score` of these rows alone, with these doubts."""

    def of_some(doubt_of_rows: Array) -> Array:
        everywhere = doubt.copy()
        everywhere[rows] = doubt_of_rows
        return score(everywhere)[rows]

    return of_some


def _shared(model: PerformanceModel, encoded: Encoded, pending: Encoded, noise: float) -> Array:
    """(pending, rows of `encoded`): its columns' inner products are the covariance that `pending` will explain."""
    if not len(pending):
        return np.zeros((0, len(encoded)))
    own = model.covariance(pending, pending) + noise * np.eye(len(pending))
    lower = np.linalg.cholesky(own)
    return np.asarray(solve_triangular(lower, model.covariance(pending, encoded), lower=True))
