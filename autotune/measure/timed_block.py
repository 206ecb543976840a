"""A timed block, and what the loader's log shows about it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from autotune.measure.loader_log import LoaderLog
from autotune.measure.loading import Loading
from autotune.records import Block

_ENDED = 4.0
"""After so many usual fetch times, all fetches in progress have ended."""
_LEAST_S = 1e-9


@dataclass(kw_only=True, eq=False)
class TimedBlock:
    block: Block
    began_s: float
    ended_s: float
    first_take: int
    end_take: int
    waited_s: float
    """Waiting for batches that were not ready, as far as training stood still."""
    backlog_s: float
    """Work that the device still had after the host had queued the last step: how far the host runs ahead."""
    overlap_s: float
    """Extra seconds of the block compared with continuous training. There, the device still works while the host waits
    for the first batch; here it had no work left."""
    edges: int
    """Epochs that began in it, without the very first."""
    is_first_epoch: bool
    produced: float | None = None
    """Batches that the workers loaded meanwhile; None until that is certain."""

    def __post_init__(self) -> None:
        busy_s = max(self.block.seconds - self.waited_s, _LEAST_S)
        self.busy = self.block.model_copy(update={"seconds": busy_s})
        """The block without the waiting for data."""

    @property
    def batches(self) -> int:
        return self.end_take - self.first_take

    @property
    def going_on_s(self) -> float:
        """Seconds that the block takes in continuous training."""
        return self.block.seconds - self.overlap_s


def timed_block(
    block: Block, log: LoaderLog, *, began_s: float, asked_s: float, ended_s: float, first_take: int
) -> TimedBlock:
    """`block` has just ended; `log` contains everything that happened in it. `asked_s`: when the host had queued its
    last step."""
    end_take, backlog_s = log.taken, ended_s - asked_s
    return TimedBlock(
        block=block,
        began_s=began_s,
        ended_s=ended_s,
        first_take=first_take,
        end_take=end_take,
        waited_s=min(_waited_s(log, range(first_take, end_take)), block.phases.get("data_wait", math.inf)),
        backlog_s=backlog_s,
        overlap_s=min(log.takes[first_take].waited_s, backlog_s),
        edges=log.edges_between(first_take, end_take),
        is_first_epoch=not log.edges_between(0, first_take + 1),
    )


def blocks_of_epochs(blocks: Sequence[TimedBlock], epoch_batches: int | None) -> Sequence[TimedBlock]:
    """The first consecutive, undisturbed `blocks` that together have as many batches as an epoch, or a multiple. They
    contain as many edges as epochs, wherever they begin."""
    whole = batches = 0
    for number, timed in enumerate(blocks):
        if timed.block.disturbances or (number and timed.first_take != blocks[number - 1].end_take):
            break
        batches += timed.batches
        if epoch_batches and not batches % epoch_batches:
            whole = number + 1
    return blocks[:whole]


def _waited_s(log: LoaderLog, taken: range) -> float:
    """Seconds of waiting for batches that were not ready, beyond the time to take a ready one."""
    ready = [log.was_loaded(take) for take in taken]
    waits = [log.takes[take].waited_s for take in taken]
    usual = [wait for wait, loaded in zip(waits, ready, strict=True) if loaded]
    usual_s = statistics.median(usual) if usual else 0.0
    return math.fsum(max(wait - usual_s, 0.0) for wait, loaded in zip(waits, ready, strict=True) if not loaded)


def demand(blocks: Sequence[TimedBlock]) -> float:
    """Micro-batches that the loop trains on per second while a batch is ready."""
    return sum(timed.batches for timed in blocks) / math.fsum(timed.busy.seconds for timed in blocks)


def produced(timed: TimedBlock, log: LoaderLog, loaded: Loading) -> float:
    """Batches that the workers loaded during a block."""
    if timed.produced is not None:
        return timed.produced
    found = log.produced(timed.began_s, timed.ended_s, loaded.usual_s)
    if log.takes[-1].at_s - timed.ended_s > _ENDED * loaded.mean_s:
        timed.produced = found
    return found
