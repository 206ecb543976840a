"""The sustained part of timed blocks: the rest came from the prefetch queue, or went into it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from autotune.measure import cores
from autotune.measure.evidence import Evidence
from autotune.measure.loader_log import LoaderLog
from autotune.measure.loading import Loading
from autotune.measure.timed_block import TimedBlock, produced
from autotune.records import Block

_BY_CHANCE = 2.0
"""Standard errors."""
_PER_BATCH = 1_000_000
"""Parts of batches are counted in millionths."""


class Share(NamedTuple):
    """The sustained part of a block."""

    batches: float
    seconds: float

    @property
    def rate(self) -> float:
        return self.batches / self.seconds


def shares(seen: Evidence) -> Sequence[Share]:
    """For each block in the middle of an epoch: what the loop took if the loader is clearly faster; what the workers
    loaded if it is clearly slower; otherwise the smaller of the two over all blocks, or the mean if they agree."""
    log, loaded, blocks = seen.log, seen.loaded, seen.middle
    taken = [Share(float(timed.batches), timed.going_on_s) for timed in blocks]
    if seen.whole_epochs or loaded is None or not log.workers:
        return taken
    if seen.compete and loaded.cpu_s is not None:
        cpu_s, loads = loaded.cpu_s, cores.loader_loads(blocks)
        pairs = zip(blocks, loads, strict=True)
        return [_on_busy_cores(timed, log, loaded, cpu_s, load) for timed, load in pairs]
    if not seen.may_wait:
        return taken
    delivered = [Share(produced(timed, log, loaded), timed.block.seconds) for timed in blocks]
    if not any(share.batches for share in delivered):  # all batches of the epoch are dispatched, none of the next epoch
        return taken
    if seen.loader_limits:
        return delivered
    return _smaller(delivered, taken, math.hypot(loaded.relative_error_of(total(delivered).batches), _error(taken)))


def _smaller(one: Sequence[Share], other: Sequence[Share], error: float) -> Sequence[Share]:
    """The smaller of two, or the mean if the difference may be noise: the smaller of two values that differ only by
    noise is biased. `error`: relative standard error of their ratio."""
    smaller, larger = sorted((one, other), key=lambda each: total(each).rate)
    if total(larger).rate > (1 + _BY_CHANCE * error) * total(smaller).rate:
        return smaller
    return [
        Share((a.batches + b.batches) / 2, (a.seconds + b.seconds) / 2) for a, b in zip(smaller, larger, strict=True)
    ]


def _error(each: Sequence[Share]) -> float:
    """Relative standard error of the common rate."""
    rates = [share.rate for share in each]
    return statistics.stdev(rates) / statistics.fmean(rates) / math.sqrt(len(rates)) if len(rates) > 1 else math.inf


def total(each: Sequence[Share]) -> Share:
    return Share(math.fsum(share.batches for share in each), math.fsum(share.seconds for share in each))


def as_blocks(blocks: Sequence[TimedBlock], each: Sequence[Share]) -> list[Block]:
    """The sustained part of `blocks`, in millionths of batches: their spread is the spread of the result."""
    return [
        Block(
            steps=timed.block.steps,
            samples=round(share.batches * _PER_BATCH),
            seconds=share.seconds,
            phases={},
            disturbances=timed.block.disturbances,
        )
        for timed, share in zip(blocks, each, strict=True)
    ]


def _on_busy_cores(timed: TimedBlock, log: LoaderLog, loaded: Loading, cpu_s: float, load: float | None) -> Share:
    """If all cores are busy, batches that the workers load beyond those that are trained on take time from training;
    with a full queue they load none. Their CPU time shows how much that was, more precisely than the batches that they
    began and ended. `load`: cores that they kept busy, if counted."""
    computed_s = produced(timed, log, loaded) * cpu_s if load is None else load * timed.block.seconds
    surplus_s = (computed_s - timed.batches * cpu_s) / cores.own_load(timed)
    return Share(float(timed.batches), max(timed.going_on_s - surplus_s, timed.going_on_s / 2))
