"""A DataLoader's prefetch queue by calculation: what an epoch takes, edges included, and what its middle takes.

Batch k is dispatched to worker k mod W when the epoch begins, if k < W × prefetch, else when batch k − W × prefetch is
taken; its worker starts it then, or when it has finished batch k − W. The loop takes batches in order, each when it is
loaded and the loop has trained on the one before.

When a batch is taken depends on earlier ones only, so what an epoch costs beyond its batches lies at its beginning: a
few hundred batches are calculated one by one, and the rest of a longer epoch takes the pace that they have reached.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_QUEUES_TO_SETTLE = 4
_EVEN, _UNEVEN = 1.1, 1.5
"""Times the mean: where no batch takes longer, and where one does, so that it matters which of them comes where."""
_WINDOW, _LONGER_WINDOW = 512, 2048
"""Batches that give the pace, at least; where they are uneven."""
_OF_EPOCHS = 8192
"""Batches of short epochs that are calculated, or of the beginnings of long ones. The mean of three epochs was 1.5 %
off, where batches differ by a tenth."""

Seconds = NDArray[np.float64]


class _LongEpoch(NamedTuple):
    pace_s: float
    edge_s: float


class _Path(NamedTuple):
    """When each batch of an epoch was loaded, and when it was taken."""

    finished: list[float]
    taken: list[float]


def epoch_seconds(batches: int, *, workers: int, prefetch: int, fetch_s: ArrayLike, step_s: float) -> float:
    """From the dispatch of an epoch's first batches to the end of the training on its last one.

    `fetch_s`: seconds that batches take to load, drawn in random order. `step_s`: seconds of training on one
    micro-batch. Without workers the loop loads by itself.
    """
    known = np.asarray(fetch_s, dtype=np.float64)
    if not workers:
        return batches * (float(known.mean()) + step_s)
    if batches <= sum(_lengths(workers, prefetch, known)):
        return _short_epoch_seconds(batches, workers, prefetch, known, step_s)
    pace_s, edge_s = _long_epoch(batches, workers, prefetch, known, step_s)
    return batches * pace_s + edge_s


def pace(*, workers: int, prefetch: int, fetch_s: ArrayLike, step_s: float = 0.0) -> float:
    """Seconds for each batch in the middle of an epoch that never ends; without `step_s`, of the loader alone."""
    known = np.asarray(fetch_s, dtype=np.float64)
    if not workers:
        return float(known.mean()) + step_s
    return _long_epoch(workers, workers, prefetch, known, step_s).pace_s


def edge_seconds(batches: int, *, workers: int, prefetch: int, fetch_s: ArrayLike, step_s: float) -> float:
    """Seconds that an epoch takes beyond its batches at the pace in its middle."""
    if not workers:
        return 0.0
    known = np.asarray(fetch_s, dtype=np.float64)
    pace_s, edge_s = _long_epoch(batches, workers, prefetch, known, step_s)
    if batches <= sum(_lengths(workers, prefetch, known)):
        edge_s = _short_epoch_seconds(batches, workers, prefetch, known, step_s) - batches * pace_s
    return max(edge_s, 0.0)


def _short_epoch_seconds(batches: int, workers: int, prefetch: int, known: Seconds, step_s: float) -> float:
    """Mean of several epochs, one after the other."""
    if _never_waits(known, workers, step_s):
        return batches * step_s + _first_wait_s(known, min(workers, batches), step_s)
    epochs = max(_OF_EPOCHS // batches, 1)
    drawn = _epochs(known, epochs, batches, workers)
    return float(_taken(drawn, workers, prefetch, step_s).mean()) + step_s


def _long_epoch(batches: int, workers: int, prefetch: int, known: Seconds, step_s: float) -> _LongEpoch:
    """An epoch of more batches than are calculated; asked for after each block, often with nothing new known."""
    return _remembered(batches, workers, prefetch, known.tobytes(), step_s)


@functools.lru_cache(maxsize=16)
def _remembered(batches: int, workers: int, prefetch: int, fetch_s: bytes, step_s: float) -> _LongEpoch:
    known: Seconds = np.frombuffer(fetch_s)
    if _never_waits(known, workers, step_s):
        return _LongEpoch(step_s, _first_wait_s(known, workers, step_s))
    settle, window = _lengths(workers, prefetch, known)
    path = _path(_drawn(known, (settle, window)), workers, prefetch, step_s)
    pace_s = _pace_over(path, workers, window, step_s) if window else max(float(known.mean()) / workers, step_s)
    # As far into a round of all workers as the epoch's last batch is.
    alike = settle - 1 - (settle - batches) % workers
    epochs = max(_OF_EPOCHS // settle, 1) if window else 1  # some begin with a slow batch, others do not
    drawn = _epochs(known, epochs, settle, workers)
    reached_s = float(_taken(drawn[:, : alike + 1], workers, prefetch, step_s).mean())
    return _LongEpoch(pace_s, reached_s + step_s - (alike + 1) * pace_s)


def _pace_over(path: _Path, workers: int, window: int, step_s: float) -> float:
    """Over the last `window` batches, a multiple of `workers`: halfway between what the loop took and what the workers
    loaded. In the end both are the same; until then workers drift apart, the loop waits for the slowest of them, and
    the others load ahead."""
    finished, taken = path
    took_s = (taken[-1] - taken[-1 - window]) / window
    loaded_s = (sum(finished[-workers:]) - sum(finished[-workers - window : -window])) / workers / window
    return (took_s + max(loaded_s, step_s)) / 2


def _lengths(workers: int, prefetch: int, known: Seconds) -> tuple[int, int]:
    """Batches until the queue is in a state of its own, and those after them that give the pace: none where batches are
    so even that no worker ever waits for another."""
    fewest = 0 if _largest(known) <= _EVEN else _LONGER_WINDOW if _is_uneven(known) else _WINDOW
    return _QUEUES_TO_SETTLE * workers * prefetch, workers * -(-fewest // workers)


def _largest(known: Seconds) -> float:
    """Times the mean."""
    return float(known.max() / known.mean()) if known.any() else 1.0


def _is_uneven(known: Seconds) -> bool:
    return _largest(known) > _UNEVEN


def _never_waits(known: Seconds, workers: int, step_s: float) -> bool:
    """Whether every batch is loaded by the time that its worker's turn comes again, so that training is the limit."""
    return bool(known.max() <= workers * step_s)


def _first_wait_s(known: Seconds, first: int, step_s: float) -> float:
    """How far training falls behind over an epoch's `first` batches, which are loaded side by side."""
    late = _drawn(known, (_WINDOW // first * first,)).reshape(-1, first) - step_s * np.arange(first)
    return float(late.max(axis=1).mean())


def _drawn(known: Seconds, lengths: tuple[int, ...]) -> Seconds:
    """So many of `known` in random order, with their mean: in each stretch one as often as the other.

    In turn, a number of them that the workers divide would give the slow ones to one worker always. The order depends
    on nothing but the lengths, so that a result changes with what is known, not with luck.
    """
    drawn: Seconds = np.sort(known)[(_ranks(lengths) * len(known)).astype(np.intp)]
    mean_s = float(drawn.mean())
    return drawn * (float(known.mean()) / mean_s) if mean_s else drawn


def _epochs(known: Seconds, epochs: int, batches: int, workers: int) -> Seconds:
    """So many epochs of `known` in random order. The first batch of each worker, which training waits for, is as often
    a slow one as any."""
    first = min(workers, batches)
    drawn = _drawn(known, (epochs * first, epochs * (batches - first)))
    begun, later = drawn[: epochs * first], drawn[epochs * first :]
    return np.hstack((begun.reshape(epochs, first), later.reshape(epochs, -1)))


@functools.lru_cache(maxsize=64)
def _ranks(lengths: tuple[int, ...]) -> Seconds:
    """Evenly spread over [0, 1) in each stretch, in random order."""
    generator = np.random.default_rng(0)
    return np.concatenate([(generator.permutation(length) + 0.5) / length for length in lengths])


def _taken(epochs: Seconds, workers: int, prefetch: int, step_s: float) -> Seconds:
    """When the last batch of each of several epochs, a row each, is taken: `_path` of all at once."""
    begun = np.zeros(len(epochs))
    finished, taken = [begun] * workers, [begun] * (workers * prefetch)
    now_s = begun - step_s
    for batch, seconds in enumerate(epochs.T):
        finished.append(np.maximum(finished[batch], taken[batch]) + seconds)
        now_s = np.maximum(now_s + step_s, finished[-1])
        taken.append(now_s)
    return now_s


def _path(fetch_s: Seconds, workers: int, prefetch: int, step_s: float) -> _Path:
    """An epoch that begins at 0."""
    finished, taken = [0.0] * workers, [0.0] * (workers * prefetch)
    now_s = -step_s
    for seconds, worker_free_s, dispatched_s in zip(fetch_s.tolist(), finished, taken, strict=False):
        loaded_s = (worker_free_s if worker_free_s > dispatched_s else dispatched_s) + seconds
        now_s += step_s
        if loaded_s > now_s:
            now_s = loaded_s
        finished.append(loaded_s)  # comes up again `workers` batches later
        taken.append(now_s)  # and a whole queue later
    return _Path(finished[workers:], taken[workers * prefetch :])
