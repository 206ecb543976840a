"""What is timed after the warm-up: whole epochs where two fit into the time, else steps in the middle of an epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from autotune.measure import prefetch_queue
from autotune.measure.loader_log import LoaderLog
from autotune.measure.loading import Loading
from autotune.records import TrialRequest

_BLOCKS_PER_LIMIT = 12
_BLOCKS_OF_A_SOAK = 30
"""At least: a trend in the memory shows between them."""
_SHORTEST_BLOCK_S, _LONGEST_BLOCK_S = 0.02, 0.5
"""The shorter dwarfs the clock and the synchronisation, some 10 µs each; beyond the longer blocks would only hide the
spread."""
_FEWEST_EPOCHS, _FEWEST_PARTS = 2, 6
EDGE_COUNTS = 0.02
"""Share of an epoch that its edge takes, from which on it is worth timing."""
_PAST_FIRST_EPOCH = 0.4
"""Share of the time limit for loading the rest of the first epoch, so that caches are warm while timing."""
_LOADER_LIMITS = 0.9
"""Share of the steps' rate: a loader that delivers less keeps its queue empty."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do after the warm-up."""

    steps: int
    """Optimizer steps of a block."""
    block_s: float
    whole_epochs: bool = False
    """Whether each block is as many steps as whole epochs have, from an epoch's start on."""
    one_epoch: bool = False
    """Whether the blocks are parts of as many batches as an epoch has, wherever they begin."""
    discard: int = 0
    """Micro-batches that are taken without training first, to the end of the epoch."""
    empty_queue: bool = False
    """Whether what is queued is discarded first, because in the long run the queue is empty."""


def may_discard(request: TrialRequest) -> bool:
    """Whether batches may be taken without training on them: not where losses are compared, nor in a soak, which has to
    train as a user does."""
    return request.max_steps is None and not request.watch_training and request.min_steps == 0


def plan(
    request: TrialRequest, log: LoaderLog, loaded: Loading, *, step_s: float, left_s: float, wall_s: float
) -> Plan:
    """For steps of `step_s` seconds without waiting for data, `wall_s` with it; `left_s`: to the time limit."""
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
    """Whether the loader is surely slower than training, at `batch_s` seconds a micro-batch."""
    return log.workers > 0 and batch_s < _LOADER_LIMITS * loaded.pace_s


def _lasting_s(log: LoaderLog, loaded: Loading, batch_s: float) -> float:
    """Seconds for each micro-batch in the middle of an epoch."""
    return loaded.mean_s + batch_s if not log.workers else max(loaded.pace_s, batch_s)


def _whole_epochs(
    log: LoaderLog, loaded: Loading, batch_s: float, accumulated: int, block_s: float, left_s: float
) -> Plan | None:
    """Blocks of as many epochs as last `block_s` at least; None where two do not fit into `left_s`.

    Where windows of accumulation do not come out even with an epoch, blocks have so many epochs that they do, or as
    nearly as the time allows; `Account` makes up for what is left.
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
    """Blocks that make up as many batches as one epoch has, and so have its edge among them, where that is worth it."""
    steps, uneven = divmod(batches, accumulated)
    if uneven or edge_s < EDGE_COUNTS * epoch_s:
        return None
    each = max(1, round(steps * min(block_s / epoch_s, 1 / _FEWEST_PARTS)))
    return Plan(steps=each, block_s=epoch_s * each / steps, one_epoch=True)
