"""The input for calculating rates: the timed blocks that count, and what is known about the loader alone."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from autotune.measure import cores
from autotune.measure.loader_log import LoaderLog
from autotune.measure.loading import Loading, first_was_cold, loading
from autotune.measure.slow_batches import are_missing
from autotune.measure.timed_block import TimedBlock, blocks_of_epochs, demand

_FEWEST_LATER = 3
_FEWEST_CLEAR_OF_EDGES = 2
CLEARLY_FASTER = 1.1
"""A loader that is faster than training by this factor keeps its queue full."""
USUALLY_AHEAD = 3
"""Micro-batches that a device has when its queue of kernels is full, the present one included."""
_AT_ONCE = 0.1
"""Share of a micro-batch: a host that is less ahead of its device trains on the CPU, or behaves like that."""
_SHORT_EPOCH = 2
"""Factor on the capacity of the queue."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    log: LoaderLog
    loaded: Loading | None
    """None if no loaded batch has been seen."""
    timed: Sequence[TimedBlock]
    clean: list[TimedBlock]
    """Blocks that count according to `autotune.stats.undisturbed`; without those of the first epoch if enough others
    are left."""
    middle: list[TimedBlock]
    """Those of them in the middle of an epoch, far from its start and its end, where workers are idle; all of them if
    whole epochs were timed, or if too few are in the middle."""
    near_edge: list[TimedBlock]
    """The other blocks that count."""
    whole_epochs: bool
    has_middle: bool
    """Whether enough blocks lie far from an epoch's start and end."""
    demand: float
    """Micro-batches that the loop trains on per second while a batch is ready."""
    compete: bool
    """Whether loading takes time from training, on cores that both compute on."""

    @property
    def step_s(self) -> float:
        """Seconds of training on a micro-batch that is ready."""
        return 1 / self.demand

    @property
    def may_wait(self) -> bool:
        """Whether training may have to wait for the loader's processes."""
        return bool(self.log.workers and self.loaded and self.loaded.pace_s * self.demand * CLEARLY_FASTER >= 1)

    @property
    def loader_limits(self) -> bool:
        """Whether the loader's processes are clearly slower than training."""
        return bool(self.log.workers and self.loaded and self.loaded.pace_s * self.demand > CLEARLY_FASTER)

    @functools.cached_property
    def blocks_of_epochs(self) -> Sequence[TimedBlock]:
        """Blocks that together have as many batches as an epoch, if they show how long an epoch takes. They do not in
        the first epoch if the loader is the limit (batches arrive in bursts) or its files were cold. They also do not
        if a block began just before an edge: the device had no work left then, which it would have had over the
        edge."""
        whole = [] if self.whole_epochs else blocks_of_epochs(self.timed, self.log.epoch_batches)
        if whole and whole[0].is_first_epoch and (self.loader_limits or first_was_cold(self.log)):
            return []
        starts = [epoch.first_take for epoch in self.log.epochs[1:]]
        early = any(0 <= start - timed.first_take < USUALLY_AHEAD for timed in whole for start in starts)
        return [] if early and self._host_runs_ahead else whole

    @property
    def _host_runs_ahead(self) -> bool:
        backlog_s = statistics.median(timed.backlog_s for timed in self.timed)
        return backlog_s > _AT_ONCE * self.step_s

    @property
    def is_calculated(self) -> bool:
        """Whether the time of an epoch is calculated from the rates of both sides, because no blocks show it."""
        return self.is_all_queued or self.lacks_slow_batches

    @functools.cached_property
    def lacks_slow_batches(self) -> bool:
        """Whether there are slow batches that loader processes have to make up for, and too few of them are in the
        blocks."""
        if self.whole_epochs or self.compete or not self.log.workers:
            return False
        began_s = min(timed.began_s for timed in self.clean)
        beside_a_device = statistics.median(timed.backlog_s for timed in self.clean) > self.step_s
        return are_missing(self.log, began_s, beside_a_device=beside_a_device)

    @property
    def is_all_queued(self) -> bool:
        """Whether an epoch is too short for the queue to reach its steady state or for blocks between two edges, and
        was not timed as a whole. Such an epoch has no middle; its time is calculated from the rates of both sides."""
        epoch = self.log.epoch_batches
        if epoch is None or self.whole_epochs or self.compete:
            return False
        if self.log.workers and not self.has_middle:
            return True
        return epoch <= _SHORT_EPOCH * self.log.capacity


def evidence(timed: Sequence[TimedBlock], log: LoaderLog, *, whole_epochs: bool, trains_on_cpu: bool) -> Evidence:
    """Needs at least one block. `whole_epochs`: each block begins and ends with an epoch."""
    clean = _clean(timed)
    near = [] if whole_epochs else [one for one in clean if _is_near_edge(one, log)]
    has_middle = len(clean) - len(near) >= _FEWEST_CLEAR_OF_EDGES
    if not has_middle:
        near = []
    middle = [one for one in clean if one not in near]
    loaded = loading(log, clean[0].began_s if clean else -math.inf)
    return Evidence(
        log=log,
        loaded=loaded,
        timed=timed,
        clean=clean,
        middle=middle,
        near_edge=near,
        whole_epochs=whole_epochs,
        has_middle=has_middle,
        demand=demand(clean),
        compete=trains_on_cpu and loaded is not None and cores.compete(middle, loaded, log.workers),
    )


def _clean(timed: Sequence[TimedBlock]) -> list[TimedBlock]:
    clean = [one for one in timed if not one.block.disturbances] or list(timed)
    later = [one for one in clean if not one.is_first_epoch]
    return later if len(later) >= _FEWEST_LATER else clean


def _is_near_edge(timed: TimedBlock, log: LoaderLog) -> bool:
    epoch = log.epoch_batches
    return timed.edges > 0 or (epoch is not None and log.position_after(timed.end_take) > epoch - log.capacity)
