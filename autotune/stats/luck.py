"""How much of the lead of the best of several is luck: what was chosen for its value seems larger than it is."""

from __future__ import annotations

import numpy as np

from autotune.stats.likelihood import Values

_APART = np.geomspace(5e-4, 0.3, 32)
"""Standard deviations, all as likely, that the true logarithms may have among those that nobody can tell apart."""


def luck(values: Values, variances: Values) -> float:
    """How far the first of several noisy logarithms lies above its true one, on average; negative below.

    The true ones are taken to be normal around a common place, as far apart as the values leave open: the hierarchical
    model of Rubin (Journal of Educational Statistics 6, 1981), which needs not know how one was chosen. Values that
    differ by no more than noise are taken for equal ones; of one that is far from all others, nothing is luck.
    """
    total = variances + _APART[:, None] ** 2
    weights = 1 / total
    places = (weights * values).sum(axis=1) / weights.sum(axis=1)
    off = values - places[:, None]
    logs = -0.5 * (np.log(total).sum(axis=1) + np.log(weights.sum(axis=1)) + (weights * off**2).sum(axis=1))
    likely = np.exp(logs - logs.max())
    return float((likely * variances[0] / total[:, 0] * off[:, 0]).sum() / likely.sum())
