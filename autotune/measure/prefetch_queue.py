"""A DataLoader's prefetch queue by calculation: what an epoch takes, edges included, and what its middle takes.

Batch k is dispatched to worker k mod W when the epoch begins, if k < W × prefetch, else when batch k − W × prefetch is
taken; its worker starts it then, or when it has finished batch k − W. The loop takes batches in order, each when it is
loaded and the loop has trained on the one before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice

_QUEUES_TO_SETTLE = 4
_MOST_BATCHES = 20_000
"""Batches that are calculated one by one; in a longer epoch the rest takes the pace of the middle."""
_FEWEST_BATCHES = 500
"""Calculated where their loading differs, so that it does not matter which of them comes where."""


def epoch_seconds(batches: int, *, workers: int, prefetch: int, fetch_s: Sequence[float], step_s: float) -> float:
    """From the dispatch of an epoch's first batches to the end of the training on its last one.

    `fetch_s`: seconds that batches take to load, drawn in random order: in turn, a number of them that the workers
    divide would give the slow ones to one worker always. `step_s`: seconds of training on one micro-batch. Without
    workers the loop loads by itself.
    """
    if not workers:
        return batches * (sum(fetch_s) / len(fetch_s) + step_s)
    calculated = min(batches, _MOST_BATCHES)
    epochs = max(_FEWEST_BATCHES // calculated, 1) if len(fetch_s) > 1 else 1
    drawn = _drawn(fetch_s)
    taken_s = sum(_takes(calculated, workers, prefetch, drawn, step_s)[-1] for _ in range(epochs)) / epochs
    beyond = (batches - calculated) * pace(workers=workers, prefetch=prefetch, fetch_s=fetch_s, step_s=step_s)
    return taken_s + step_s + beyond


def pace(*, workers: int, prefetch: int, fetch_s: Sequence[float], step_s: float = 0.0) -> float:
    """Seconds for each batch in the middle of an epoch that never ends; without `step_s`, of the loader alone."""
    if not workers:
        return sum(fetch_s) / len(fetch_s) + step_s
    settle = _QUEUES_TO_SETTLE * workers * prefetch
    fewest = max(len(fetch_s), settle, _FEWEST_BATCHES if len(fetch_s) > 1 else 0)
    window = workers * -(-fewest // workers)
    taken = _takes(settle + window + 1, workers, prefetch, _drawn(fetch_s), step_s)
    return (taken[-1] - taken[settle]) / window


def edge_seconds(batches: int, *, workers: int, prefetch: int, fetch_s: Sequence[float], step_s: float) -> float:
    """Seconds that an epoch takes beyond its batches at the pace in its middle."""
    whole_s = epoch_seconds(batches, workers=workers, prefetch=prefetch, fetch_s=fetch_s, step_s=step_s)
    middle_s = pace(workers=workers, prefetch=prefetch, fetch_s=fetch_s, step_s=step_s)
    return max(whole_s - batches * middle_s, 0.0)


def _drawn(fetch_s: Sequence[float]) -> Iterator[float]:
    """Without end; each as often as the others."""
    generator, once = random.Random(0), list(fetch_s)
    while True:
        generator.shuffle(once)
        yield from once


def _takes(batches: int, workers: int, prefetch: int, fetch_s: Iterator[float], step_s: float) -> list[float]:
    """When each batch of an epoch that begins at 0 is taken."""
    capacity = workers * prefetch
    finished, taken = [0.0] * batches, [0.0] * batches
    for k, seconds in enumerate(islice(fetch_s, batches)):
        dispatched = taken[k - capacity] if k >= capacity else 0.0
        before = finished[k - workers] if k >= workers else 0.0
        finished[k] = max(dispatched, before) + seconds
        taken[k] = max(finished[k], taken[k - 1] + step_s) if k else finished[k]
    return taken
