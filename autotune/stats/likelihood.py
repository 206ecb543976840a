"""What a few noisy values say, for each place where they may lie and each scale that their noise may have: on grids.

Values are logarithms of rates. Each comes with normal noise or, now and then, from a run that other work slowed down by
a third or by half.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

Values = np.ndarray

_LARGEST, _COUNT = 1.2, 23
SCALES = _LARGEST * np.sqrt(2.0) ** np.arange(1 - _COUNT, 1)
"""Standard deviations, from 0.06 %; each has twice the variance of the one before."""
_OUTLIERS, _OUTLIER_SCALE, _SLOW = 0.04, 0.4, 0.85
"""Share of runs that other work hits, by how much in log-units, and how many of those it slows down."""
_TAIL_FREEDOM = 2.0
"""Degrees of freedom of the outliers' Student density: some runs are ten times slower."""
_AT_ONCE = 40
_AROUND = np.geomspace(1e-4, 1.5, 18)
_AROUND = np.concatenate([-_AROUND[::-1], [0.0], _AROUND])
_CLOSE = np.linspace(-6, 6, 37)


def log_likelihood(values: Values, places: Values, *, runs: int = 1, slow_only: bool = False) -> Values:
    """Logarithm of the likelihood of the values, for each place (row) and scale (column), but for a constant.

    `runs`: from how many each value is made, scaled so that its noise is that of one: the more, the more often one of
    them is an outlier, and the less that one counts. `slow_only`: an outlier lies below the rest, as the rate of a run
    does that other work slowed down; else, as their differences do, on either side.
    """
    if len(values) > _AT_ONCE:  # their product would leave the range of a float
        parts = np.array_split(values, math.ceil(len(values) / _AT_ONCE))
        return np.asarray(sum(log_likelihood(part, places, runs=runs, slow_only=slow_only) for part in parts))
    apart = values[:, None] - places[None, :]
    squares = apart * apart
    outliers, slow = 1 - (1 - _OUTLIERS) ** runs, _SLOW if slow_only else 0.5
    scale = _OUTLIER_SCALE * (math.sqrt((runs - 1) / runs) if runs > 1 else 1.0)
    tail = (1 + squares / (_TAIL_FREEDOM * scale**2)) ** (-(_TAIL_FREEDOM + 1) / 2)
    tail *= outliers * np.where(apart < 0, slow, 1 - slow) / (math.sqrt(2) * scale)
    normal = np.empty((_COUNT, *apart.shape))
    normal[-1] = np.exp(-0.5 * squares / _LARGEST**2)
    for number in range(_COUNT - 1, 0, -1):  # half the variance: the square
        np.multiply(normal[number], normal[number], out=normal[number - 1])
    normal *= ((1 - outliers) / (SCALES * math.sqrt(2 * math.pi)))[:, None, None]
    normal += tail
    return np.asarray(np.log(normal.prod(axis=1)).T)


def likely_places(values: Values) -> Values:
    """Where a density may have its peaks, in ascending order: close to each value, or to a few of many, and to their
    middle."""
    ordered = np.sort(values)
    count = len(ordered)
    few = ordered[_evenly(count)]
    middle, mean = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2, ordered.mean()
    peaks = np.concatenate([few, [mean, middle]])
    apart = np.sort(np.abs(ordered - middle))
    usual = max(1.4826 * apart[count // 2], math.sqrt(float(np.mean((ordered - mean) ** 2))) / 3, 2e-4)
    return np.sort(np.concatenate([(peaks[:, None] + _AROUND).ravel(), middle + _CLOSE * usual / math.sqrt(count)]))


@lru_cache(maxsize=256)
def _evenly(count: int) -> Values:
    """Places of five of so many, or of all."""
    return np.unique(np.round(np.linspace(0, count - 1, min(count, 5))).astype(int))


def widths(places: Values) -> Values:
    """Weights of the trapezoid rule."""
    gaps = np.diff(places)
    return np.concatenate([gaps[:1], gaps[1:] + gaps[:-1], gaps[-1:]]) / 2
