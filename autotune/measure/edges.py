"""The cost of an epoch's edge: the seconds that an epoch takes beyond its batches at the rate in its middle."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from autotune.measure import cores, prefetch_queue
from autotune.measure.evidence import USUALLY_AHEAD, Evidence
from autotune.measure.loading import Loading
from autotune.measure.timed_block import TimedBlock

_HELD_UP = 0.9
"""Share of a block."""


def edge_seconds(seen: Evidence, loaded: Loading, rate: float) -> float:
    """Seconds of one edge. If training is the limit: measured, in comparison with the blocks in the middle, which take
    `rate` micro-batches per second. Otherwise calculated, because batches arrive in bursts."""
    log = seen.log
    epoch = log.epoch_batches
    if epoch is None:
        return 0.0
    restarts = [one.restart_s for one in log.epochs[1:]]
    restart_s = math.fsum(restarts) / len(restarts) if restarts else 0.0
    if seen.compete:
        # Work that cores do for loading at an edge is not needed later: only idle cores cost time.
        idle = cores.idle_share(seen.middle, loaded, log.workers)
        return restart_s + idle * _calculated_s(seen, loaded, epoch)
    training_limits = loaded.pace_s * seen.demand < 1
    near = seen.near_edge
    edges = sum(timed.edges for timed in near)
    if edges and training_limits and not seen.is_calculated:
        middle_s = sum(timed.batches for timed in near) / rate
        return max(math.fsum(timed.going_on_s for timed in near) - middle_s, 0.0) / edges
    edge_s = _calculated_s(seen, loaded, epoch) + restart_s
    return max(edge_s - (ahead_s(seen.middle, seen.step_s) if training_limits else 0.0), 0.0)


def _calculated_s(seen: Evidence, loaded: Loading, epoch: int) -> float:
    log = seen.log
    return prefetch_queue.edge_seconds(
        epoch, workers=log.workers, prefetch=log.prefetch, fetch_s=loaded.fetch_s, step_s=seen.step_s
    )


def ahead_s(blocks: Sequence[TimedBlock], step_s: float) -> float:
    """How far the host runs ahead of its device. If nothing held up the host in a whole block, it would have run
    further ahead than a short block can show."""
    backlog_s = statistics.median(timed.backlog_s for timed in blocks)
    whole_s = statistics.median(timed.going_on_s for timed in blocks)
    return backlog_s if backlog_s < _HELD_UP * whole_s else max(backlog_s, USUALLY_AHEAD * step_s)
