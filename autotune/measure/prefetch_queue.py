"""Calculates a DataLoader's prefetch queue: the time of an epoch, edges included, and the pace in its middle.

Batch k is dispatched to worker k mod W when the epoch begins, if k < W × prefetch, else when batch k − W × prefetch is
taken. Its worker starts it then, or when it has finished batch k − W. The loop takes batches in order, each when it is
loaded and the loop has trained on the one before.

The time at which a batch is taken depends only on earlier batches, so the extra cost of an epoch occurs at its
beginning. A few hundred batches are calculated one by one; the rest of a longer epoch has the pace that they have
reached.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_QUEUES_TO_SETTLE = 4
_EVEN, _UNEVEN = 1.1, 1.5
"""Factors on the mean: if no batch takes longer than the first, batches are even; if one takes longer than the second,
their order matters."""
_WINDOW, _LONGER_WINDOW = 512, 2048
"""Fewest batches that give the pace; the second if batches are uneven."""
_OF_EPOCHS = 8192
"""Batches to calculate in short epochs, or at the beginnings of long ones. The mean of three epochs was 1.5 % off if
batches differ by a tenth."""

Seconds = NDArray[np.float64]


class _LongEpoch(NamedTuple):
    pace_s: float
    edge_s: float


class _Path(NamedTuple):
    """When each batch of an epoch was loaded, and when it was taken."""

    finished: list[float]
    taken: list[float]


def epoch_seconds(batches: int, *, workers: int, prefetch: int, fetch_s: ArrayLike, step_s: float) -> float:
    """Seconds from the dispatch of an epoch's first batches to the end of training on its last one.

    `fetch_s`: seconds that batches take to load, drawn in random order. `step_s`: seconds of training on one
    micro-batch. Without workers the loop loads the batches itself.
    """
    known = np.asarray(fetch_s, dtype=np.float64)
    if not workers:
        return batches * (float(known.mean()) + step_s)
    if batches <= sum(_lengths(workers, prefetch, known)):
        return _short_epoch_seconds(batches, workers, prefetch, known, step_s)
    pace_s, edge_s = _long_epoch(batches, workers, prefetch, known, step_s)
    return batches * pace_s + edge_s


def pace(*, workers: int, prefetch: int, fetch_s: ArrayLike, step_s: float = 0.0) -> float:
    """Seconds for each batch in the middle of an infinite epoch; without `step_s`, for the loader alone."""
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
    """An epoch with more batches than are calculated. Called after each block, often with the same values, so results
    are cached."""
    return _remembered(batches, workers, prefetch, known.tobytes(), step_s)


@functools.lru_cache(maxsize=16)
def _remembered(batches: int, workers: int, prefetch: int, fetch_s: bytes, step_s: float) -> _LongEpoch:
    known: Seconds = np.frombuffer(fetch_s)
    if _never_waits(known, workers, step_s):
        return _LongEpoch(step_s, _first_wait_s(known, workers, step_s))
    settle, window = _lengths(workers, prefetch, known)
    path = _path(_drawn(known, (settle, window)), workers, prefetch, step_s)
    pace_s = _pace_over(path, workers, window, step_s) if window else max(float(known.mean()) / workers, step_s)
    # At the same position in a round of all workers as the epoch's last batch.
    alike = settle - 1 - (settle - batches) % workers
    epochs = max(_OF_EPOCHS // settle, 1) if window else 1  # some epochs begin with a slow batch
    drawn = _epochs(known, epochs, settle, workers)
    reached_s = float(_taken(drawn[:, : alike + 1], workers, prefetch, step_s).mean())
    return _LongEpoch(pace_s, reached_s + step_s - (alike + 1) * pace_s)


def _pace_over(path: _Path, workers: int, window: int, step_s: float) -> float:
    """The pace over the last `window` batches, a multiple of `workers`: the mean of what the loop took and what the
    workers loaded. In the long run both are equal. Before that, workers drift apart, the loop waits for the slowest of
    them, and the others load ahead."""
    finished, taken = path
    took_s = (taken[-1] - taken[-1 - window]) / window
    loaded_s = (sum(finished[-workers:]) - sum(finished[-workers - window : -window])) / workers / window
    return (took_s + max(loaded_s, step_s)) / 2


def _lengths(workers: int, prefetch: int, known: Seconds) -> tuple[int, int]:
    """Batches until the queue is in its steady state, and batches after them that give the pace: 0 if batches are so
    even that no worker ever waits for another."""
    fewest = 0 if _largest(known) <= _EVEN else _LONGER_WINDOW if _is_uneven(known) else _WINDOW
    return _QUEUES_TO_SETTLE * workers * prefetch, workers * -(-fewest // workers)


def _largest(known: Seconds) -> float:
    """The longest batch, as a multiple of the mean."""
    return float(known.max() / known.mean()) if known.any() else 1.0


def _is_uneven(known: Seconds) -> bool:
    return _largest(known) > _UNEVEN


def _never_waits(known: Seconds, workers: int, step_s: float) -> bool:
    """Whether every batch is loaded before its worker's turn comes again, so that training is the limit."""
    return bool(known.max() <= workers * step_s)


def _first_wait_s(known: Seconds, first: int, step_s: float) -> float:
    """How long training waits in total for an epoch's `first` batches, which are loaded in parallel."""
    late = _drawn(known, (_WINDOW // first * first,)).reshape(-1, first) - step_s * np.arange(first)
    return float(late.max(axis=1).mean())


def _drawn(known: Seconds, lengths: tuple[int, ...]) -> Seconds:
    """`lengths` values of `known` in random order, with the same mean; in each stretch all values are equally frequent.

    If the values were repeated in turn, always the same worker could get the slow ones. The order depends only on the
    lengths, so that a result changes with `known`, not at random.
    """
    drawn: Seconds = np.sort(known)[(_ranks(lengths) * len(known)).astype(np.intp)]
    mean_s = float(drawn.mean())
    return drawn * (float(known.mean()) / mean_s) if mean_s else drawn


def _epochs(known: Seconds, epochs: int, batches: int, workers: int) -> Seconds:
    """Several epochs of `known` in random order. The first batch of each worker, which training waits for, is slow as
    often as any other."""
    first = min(workers, batches)
    drawn = _drawn(known, (epochs * first, epochs * (batches - first)))
    begun, later = drawn[: epochs * first], drawn[epochs * first :]
    return np.hstack((begun.reshape(epochs, first), later.reshape(epochs, -1)))


@functools.lru_cache(maxsize=64)
def _ranks(lengths: tuple[int, ...]) -> Seconds:
    """Values evenly spread over [0, 1) in each stretch, in random order."""
    generator = np.random.default_rng(0)
    return np.concatenate([(generator.permutation(length) + 0.5) / length for length in lengths])


def _taken(epochs: Seconds, workers: int, prefetch: int, step_s: float) -> Seconds:
    """When the last batch of each epoch (one per row) is taken: `_path` for all epochs at once."""
    begun = np.zeros(len(epochs))
    finished, taken = [begun] * workers, [begun] * (workers * prefetch)
    now_s = begun - step_s
    for batch, seconds in enumerate(epochs.T):
        finished.append(np.maximum(finished[batch], taken[batch]) + seconds)
        now_s = np.maximum(now_s + step_s, finished[-1])
        taken.append(now_s)
    return now_s


def _path(fetch_s: Seconds, workers: int, prefetch: int, step_s: float) -> _Path:
    """The path of an epoch that begins at time 0."""
    finished, taken = [0.0] * workers, [0.0] * (workers * prefetch)
    now_s = -step_s
    for seconds, worker_free_s, dispatched_s in zip(fetch_s.tolist(), finished, taken, strict=False):
        loaded_s = (worker_free_s if worker_free_s > dispatched_s else dispatched_s) + seconds
        now_s += step_s
        if loaded_s > now_s:
            now_s = loaded_s
        finished.append(loaded_s)  # used again `workers` batches later
        taken.append(now_s)  # and a whole queue later
    return _Path(finished[workers:], taken[workers * prefetch :])
