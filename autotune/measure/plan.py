"""What to time after the warm-up: whole epochs if two fit into the time, else steps in the middle of an epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from autotune.measure import prefetch_queue
from autotune.measure.loader_log import LoaderLog
from autotune.measure.loading import Loading
from autotune.records import TrialRequest

_BLOCKS_PER_LIMIT = 12
_BLOCKS_OF_A_SOAK = 30
"""Fewest blocks of a soak, so that a trend in memory is visible."""
_SHORTEST_BLOCK_S, _LONGEST_BLOCK_S = 0.02, 0.5
"""The shortest is much longer than the errors of clock and synchronisation, about 10 µs each. Blocks longer than the
longest would only hide the spread."""
_FEWEST_EPOCHS, _FEWEST_PARTS = 2, 6
EDGE_COUNTS = 0.02
"""If the edge takes at least this share of an epoch, it is worth timing."""
_PAST_FIRST_EPOCH = 0.4
"""Largest share of the time limit for loading the rest of the first epoch, so that caches are warm during timing."""
_LOADER_LIMITS = 0.9
"""Share of the rate of training: a loader that delivers less keeps its queue empty."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do after the warm-up."""

    steps: int
    """Optimizer steps of a block."""
    block_s: float
    whole_epochs: bool = False
    """Whether each block consists of whole epochs and starts with an epoch."""
    one_epoch: bool = False
    """Whether the blocks together have as many batches as an epoch, starting anywhere in it."""
    discard: int = 0
    """Micro-batches to take first without training, up to the end of the epoch."""
    empty_queue: bool = False
    """Whether to discard the queued batches first, because the queue is empty in the long run."""


def may_discard(request: TrialRequest) -> bool:
    """Whether batches may be taken without training on them: not if losses are compared, and not in a soak, which must
    train as a user does."""
    return request.max_steps is None and not request.watch_training and request.min_steps == 0


def plan(
    request: TrialRequest, log: LoaderLog, loaded: Loading, *, step_s: float, left_s: float, wall_s: float
) -> Plan:
    """Plan for steps of `step_s` seconds without waiting for data, `wall_s` with it; `left_s`: seconds to the time
    limit."""
    accumulated = request.config.grad_accum_steps
    batch_s = step_s / accumulated
    block_s = min(max(request.time_limit_s / _BLOCKS_PER_LIMIT, _SHORTEST_BLOCK_S), _LONGEST_BLOCK_S)
    lasting_s = _lasting_s(log, loaded, batch_s)
    steps = max(1, round(block_s / max(lasting_s * accumulated, 1e-9)))
    if not may_discard(request):
        if request.min_steps:
            steps, block_s = max(1, request.min_steps // _BLOCKS_OF_A_SOAK), _LONGEST_BLOCK_S
            return Plan(steps=min(steps, max(1, round(block_s / wall_s))), block_s=block_s)
        return Plan(steps=max(1, round(block_s / wall_s)), block_s=block_s)
    to_edge_s = math.inf if log.left is None else log.left * loaded.pace_s
    whole = _whole_epochs(log, loaded, batch_s, accumulated, block_s, left_s - to_edge_s)
    if whole is not None:
        return whole
    empty_queue = loader_limits(log, loaded, batch_s)
    if request.data_was_read and not empty_queue:
        anywhere = _whole_epochs(log, loaded, batch_s, accumulated, block_s, left_s)
        if anywhere and anywhere.one_epoch:
            return replace(anywhere, discard=0)
    past_first = (
        log.epochs_ended == 0 and log.left is not None and to_edge_s <= _PAST_FIRST_EPOCH * request.time_limit_s
    )
    if past_first and log.left and not request.data_was_read:
        return Plan(steps=steps, block_s=block_s, discard=log.left)
    return Plan(steps=steps, block_s=block_s, empty_queue=empty_queue)


def loader_limits(log: LoaderLog, loaded: Loading, batch_s: float) -> bool:
    """Whether the loader is certainly slower than training, at `batch_s` seconds per micro-batch."""
    return log.workers > 0 and batch_s < _LOADER_LIMITS * loaded.pace_s


def _lasting_s(log: LoaderLog, loaded: Loading, batch_s: float) -> float:
    """Seconds for each micro-batch in the middle of an epoch."""
    return loaded.mean_s + batch_s if not log.workers else max(loaded.pace_s, batch_s)


def _whole_epochs(
    log: LoaderLog, loaded: Loading, batch_s: float, accumulated: int, block_s: float, left_s: float
) -> Plan | None:
    """Blocks of whole epochs that last at least `block_s`; None if two do not fit into `left_s`.

    If an epoch is not a multiple of an accumulation window, a block has as many epochs as make one, or as close as the
    time allows; `Account` corrects the rest.
    """
    batches = log.epoch_batches
    if batches is None:
        return None
    lasting_s = _lasting_s(log, loaded, batch_s)
    epoch_s = prefetch_queue.epoch_seconds(
        batches, workers=log.workers, prefetch=log.prefetch, fetch_s=loaded.fetch_s, step_s=batch_s
    )
    step_s = epoch_s * accumulated / batches
    if _FEWEST_EPOCHS * max(epoch_s, step_s) > left_s:
        one = _one_epoch(batches, accumulated, epoch_s, epoch_s - batches * lasting_s, block_s)
        return replace(one, discard=log.left or 0) if one and epoch_s <= left_s else None
    even = accumulated // math.gcd(batches, accumulated)
    epochs = max(1, math.ceil(block_s / epoch_s))
    if even * epoch_s * _FEWEST_EPOCHS <= left_s:
        epochs = even * math.ceil(epochs / even)
    steps = max(1, round(epochs * batches / accumulated))
    return Plan(steps=steps, block_s=steps * step_s, whole_epochs=True, discard=log.left or 0)


def _one_epoch(batches: int, accumulated: int, epoch_s: float, edge_s: float, block_s: float) -> Plan | None:
    """Blocks that together have as many batches as one epoch, and so include its edge; None if that is not worth it."""
    steps, uneven = divmod(batches, accumulated)
    if uneven or edge_s < EDGE_COUNTS * epoch_s:
        return None
    each = max(1, round(steps * min(block_s / epoch_s, 1 / _FEWEST_PARTS)))
    return Plan(steps=each, block_s=epoch_s * each / steps, one_epoch=True)
