"""Loader and step together: how long a micro-batch takes, and how much of that each side causes."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.search.performance.process import Array

SHARPNESS = 6.0
"""Norm of the larger of computing and loading, before trials tell: where both take equally long, a step takes 12 %
longer than either, because they do not interlock perfectly."""
_SHARPER = (6.0, 9.0, 13.0, 20.0, 30.0, 45.0)
_LEAST_SHARE = 1e-300
"""So that its logarithm is finite."""
_LEAVES = 0.02
"""Standard deviation of ln(what a step takes ÷ what `feed` gives) within one run, beside the noise that it states."""
_INTERPLAY_DOUBTS = (0.3, 0.1)
"""About ln(what steps take ÷ what `feed` gives), without loader processes and with: how far a device really computes
while its process loads, nobody knows before."""
_ONE_TRIAL = 0.1
"""Standard deviation of it between trials of one kind."""


class Sharpness(NamedTuple):
    """A norm, and the standard deviation of its logarithm."""

    norm: float
    doubt: float


class Fed(NamedTuple):
    """A row for each configuration."""

    period_s: Array
    """Seconds of a micro-batch, edges of epochs included."""
    of_busy: Array
    """How much of a relative change of the step's own time is one of the period."""
    of_loading: Array
    """The same of loading."""
    of_stalls: Array
    """The share of it that is waiting for slow batches."""
    of_sharpness: Array
    """How much of a relative change of the norm is one of the period; not more than 0."""


def feed(
    busy_s: Array,
    loading_s: Array,
    hidden: NDArray[np.bool_],
    first_wait_s: Array,
    sharpness: Array | float = SHARPNESS,
    stall_s: Array | float = 0.0,
) -> Fed:
    """All in seconds of a micro-batch. A step that is fed while the one before is computed takes as long as the slower
    of the two; else they take turns.

    `stall_s`: waiting for batches that are slow now and then, as `stalls_s` has it; where loading is the limit, they
    are in `loading_s`.

    `first_wait_s`: for an epoch's first batch, as its share of one micro-batch of the epoch. All loader processes begin
    their first batch at the same moment, with an empty queue. A step that never waits otherwise waits for the whole of
    it; where it waits anyway, processes end the epoch one after the other, and half of that time is lost.
    """
    logs = sharpness * np.log(np.stack([busy_s, loading_s]))
    both = np.logaddexp(*logs)
    larger_s, of_larger = np.exp(both / sharpness), np.exp(logs - both)
    middle_s = np.where(hidden, larger_s, busy_s + loading_s)
    parts_s = np.where(hidden, of_larger * larger_s, np.stack([busy_s, loading_s]))
    edge_s = np.where(hidden, first_wait_s * (1 + of_larger[0]) / 2, 0.0)
    waiting_s = np.where(hidden, of_larger[0] * stall_s, 0.0)
    period_s = middle_s + edge_s + waiting_s
    # d ln(larger_s) / d ln(sharpness): the entropy of the two sides' shares, over the norm.
    entropy = -(of_larger * np.log(np.maximum(of_larger, _LEAST_SHARE))).sum(axis=0)
    of_sharpness = np.where(hidden, -entropy / sharpness * larger_s / period_s, 0.0)
    return Fed(period_s, parts_s[0] / period_s, (parts_s[1] + edge_s) / period_s, waiting_s / period_s, of_sharpness)


def stalls_s(share: Array | float, times: Array | float, fetch_s: Array, busy_s: Array, queue: Array) -> Array:
    """Seconds that each micro-batch waits on average because a share of all batches takes so many times as long to load
    as the others. `fetch_s`: of one loader process, slow ones included; `queue`: batches that it holds when it is full.

    A batch is dispatched when one is taken, and its turn comes after as many others as the queue holds.
    """
    usual_s = fetch_s / (1 + share * (times - 1))
    return np.asarray(share * np.maximum(times * usual_s - queue * busy_s, 0.0))


def learn_sharpness(
    took_s: Array,
    busy_s: Array,
    loading_s: Array,
    first_wait_s: Array,
    errors: Array,
    stall_s: Array | float = 0.0,
) -> Sharpness:
    """The norm that trials with loader processes show: each measures both sides and what they came to together. The
    doubt is that of all norms, weighed by how likely these trials make each of them.

    `took_s` to `first_wait_s`, and `stall_s`: as `feed` has them. `errors`: relative standard errors of what the steps
    took.
    """
    hidden = np.ones(len(took_s), dtype=bool)

    def misfit(sharpness: float) -> float:
        missing = np.log(took_s / feed(busy_s, loading_s, hidden, first_wait_s, sharpness, stall_s).period_s)
        return float((missing**2 / (_LEAVES**2 + errors**2)).sum()) + math.log(sharpness / SHARPNESS) ** 2

    misfits = np.array([misfit(sharpness) for sharpness in _SHARPER])
    logs, weights = np.log(_SHARPER), np.exp((misfits.min() - misfits) / 2)
    best = int(misfits.argmin())
    doubt = math.sqrt(float((weights * (logs - logs[best]) ** 2).sum() / weights.sum()))
    return Sharpness(_SHARPER[best], doubt)


def interplay(workers: Array, missing: Array) -> tuple[float, float]:
    """What `feed` leaves unexplained, without loader processes and with, from what it has left in trials.

    `missing`: ln(what their steps took ÷ what it gave), `workers`: how many loader processes each had.
    """
    alone, fed = (
        float(values.sum() / (len(values) + (_ONE_TRIAL / doubt) ** 2))
        for values, doubt in zip((missing[workers == 0], missing[workers > 0]), _INTERPLAY_DOUBTS, strict=True)
    )
    return alone, fed
