"""From timed blocks and the loader's log to rates: what a run of hours gets, and what limits it.

Over a stretch without an epoch's edge, what lasts is the smaller of what the loop took and what the loader's processes
loaded in the same time: the rest came out of the prefetch queue, or went into it. An epoch's edge is in the figure as
often as there are edges: (samples ÷ samples of an epoch) times, whether that many were timed or not.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from autotune.measure import prefetch_queue
from autotune.measure.loader_log import Fetch, LoaderLog
from autotune.records import Block, Rates
from autotune.stats import Interval, relative_standard_error, student_t

_CLEARLY_FASTER = 1.1
"""A loader that loads so much faster than the loop trains keeps its queue full."""
_FEWEST_CLEAN = 3
_FEWEST_CLEAR_OF_EDGES = 2
_FIRST_FETCHES, _LAST_FETCHES = 16, 512
"""Of each process: those that fill the queue in the beginning, and as many as give a mean."""
_ENDED = 4.0
"""Usual fetches after which all that was under way has ended."""
_HELD_UP, _USUALLY_AHEAD = 0.9, 3
"""Share of a block; micro-batches that a device has when its queue of kernels is full, the present one included."""
_MOSTLY = 0.5
"""Share of a fetch that it waits, from which on loading does not compete for cores."""
_SHORT_EPOCH = 2
"""Times what the queue holds."""
_BUSY_SHARE = 0.9
"""Of the cores: with more at work, whoever computes takes time from the others."""
_PER_BATCH = 1_000_000
"""Parts of batches are counted in millionths."""


@dataclass(kw_only=True)
class TimedBlock:
    """A block, and what the loader's log calls it."""

    block: Block
    began_s: float
    ended_s: float
    first_take: int
    end_take: int
    waited_s: float
    """For batches that were not ready, as far as the training stood still for them."""
    backlog_s: float
    """Of work that the device still had when the host had asked for the last step: so far the host runs ahead."""
    overlap_s: float
    """That the block took longer than in training that goes on, where the device still works while the host waits for
    the first batch; here it had been waited for."""
    produced: float | None = None
    """Batches that the workers loaded meanwhile; None until it is sure."""

    @property
    def batches(self) -> int:
        return self.end_take - self.first_take

    @property
    def going_on_s(self) -> float:
        """Seconds that it takes in training that goes on."""
        return self.block.seconds - self.overlap_s


class Share(NamedTuple):
    """What lasts of a block."""

    batches: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Loading:
    """What is known of the loader alone, in seconds for each micro-batch."""

    fetch_s: tuple[float, ...]
    """In one process."""
    cpu_s: float | None
    pace_s: float
    """Of all processes together, while the queue is not full."""

    @property
    def mean_s(self) -> float:
        return statistics.fmean(self.fetch_s)

    @property
    def relative_error(self) -> float:
        if len(self.fetch_s) < 2:
            return math.inf
        error_s = statistics.stdev(self.fetch_s) / math.sqrt(len(self.fetch_s))
        return error_s / self.mean_s if error_s else 0.0


def loading(log: LoaderLog, since_s: float) -> Loading | None:
    """From the fetches since `since_s`, where those are enough; None before anything has been loaded.

    Those made while the queue was not full come first: then every process is at work, as when the loader is the limit.
    """
    if not log.workers:
        takes = [take for take in log.takes if take.asked_s >= since_s] or log.takes
        fetches = [Fetch(take.asked_s, take.at_s, take.cpu_s, True, False) for take in takes]
    else:
        fetches = _chosen(log, since_s)
    if not fetches:
        return None
    seconds = tuple(fetch.seconds for fetch in fetches[-_LAST_FETCHES:])
    cpu = [fetch.cpu_s for fetch in fetches if fetch.cpu_s is not None]
    pace_s = prefetch_queue.pace(workers=log.workers, prefetch=_prefetch(log), fetch_s=seconds)
    return Loading(fetch_s=seconds, cpu_s=statistics.fmean(cpu) if cpu else None, pace_s=pace_s)


def _chosen(log: LoaderLog, since_s: float) -> list[Fetch]:
    of_each = (one[:_FIRST_FETCHES] + one[_FIRST_FETCHES:][-_LAST_FETCHES:] for one in log.fetches)
    every = sorted(itertools.chain.from_iterable(of_each), key=lambda fetch: fetch.finish_s)
    started = [fetch for fetch in every if not fetch.first]
    saturated = [fetch for fetch in started if fetch.saturated]
    lately = [fetch for fetch in saturated if fetch.start_s >= since_s]
    fewest = max(log.workers, 3)
    for choice in (lately, saturated, started):
        if len(choice) >= fewest:
            return choice
    return started or every


def _prefetch(log: LoaderLog) -> int:
    return log.capacity // log.workers if log.workers else 0


class Account:
    """The timed blocks of one run, and what follows from them."""

    def __init__(self, log: LoaderLog, *, whole_epochs: bool, shares_cores: bool = False) -> None:
        """`whole_epochs`: each block begins and ends with an epoch. `shares_cores`: whether training computes on the
        cores on which the workers do."""
        self._log = log
        self._shares_cores = shares_cores
        self._whole = whole_epochs
        self.timed: list[TimedBlock] = []
        self._loading: tuple[tuple[int, int], Loading | None] | None = None

    def add(self, block: Block, *, began_s: float, asked_s: float, ended_s: float, first_take: int) -> None:
        """`block` has ended; the log knows all that happened in it. `asked_s`: when the host had asked the device for
        its last step."""
        taken = range(first_take, self._log.taken)
        backlog_s = ended_s - asked_s
        self.timed.append(
            TimedBlock(
                block=block,
                began_s=began_s,
                ended_s=ended_s,
                first_take=first_take,
                end_take=self._log.taken,
                waited_s=min(self._waited_s(taken), block.phases.get("data_wait", math.inf)),
                backlog_s=backlog_s,
                overlap_s=min(self._log.takes[first_take].waited_s, backlog_s),
            )
        )

    @property
    def clean(self) -> list[TimedBlock]:
        """Those that count, as `autotune.stats.undisturbed` has it; without the first epoch's, where enough are."""
        clean = [timed for timed in self.timed if not timed.block.disturbances]
        clean = clean if len(clean) >= _FEWEST_CLEAN else self.timed
        later = [timed for timed in clean if self._log.edges_between(0, timed.first_take + 1)]
        return later if len(later) >= _FEWEST_CLEAN else clean

    def loading(self) -> Loading | None:
        now = len(self.timed), self._log.taken
        if self._loading is None or self._loading[0] != now:
            self._loading = now, loading(self._log, self.clean[0].began_s if self.timed else -math.inf)
        return self._loading[1]

    def lasting(self) -> list[Block]:
        """The blocks that count, with what lasts of each in millionths of batches: their spread is that of the figure.

        Those near an epoch's edge are left out where others are left.
        """
        loaded = self.loading()
        blocks = self._clear_of_edges(self.clean)
        return [
            Block(
                steps=timed.block.steps,
                samples=round(share.batches * _PER_BATCH),
                seconds=share.seconds,
                phases={},
                disturbances=timed.block.disturbances,
            )
            for timed, share in zip(blocks, self._shares(blocks, loaded), strict=True)
        ]

    def interval(self) -> Interval | None:
        """95 % interval of the sustained samples per second, from the spread inside this run."""
        rates, lasting = self.rates(), self.lasting()
        if rates is None or len(lasting) < 2:
            return None
        half = student_t(len(lasting) - 1) * rates.sustained_error * rates.sustained_per_s
        return Interval(max(rates.sustained_per_s - half, 0.0), rates.sustained_per_s + half)

    def rates(self) -> Rates | None:
        """None before the first block, or where nobody has seen anything loaded."""
        loaded = self.loading()
        if not self.timed or loaded is None:
            return None
        blocks = self._clear_of_edges(self.clean)
        amount, seconds = _sum(self._shares(blocks, loaded))
        epoch, edge_s = self._log.epoch_batches, self._edge_s(blocks, loaded)
        edges = sum(map(self._edges, blocks))
        error = relative_standard_error(self.lasting())
        if epoch is not None and self._is_all_queued(blocks, loaded):
            amount, seconds, edges = epoch, epoch * self._calculated_pace_s(loaded), 0
            error = max(loaded.relative_error, relative_standard_error([_busy(timed) for timed in self.clean]))
        missing_s = 0.0 if epoch is None else (amount / epoch - edges) * edge_s
        samples = sum(timed.block.samples for timed in blocks) / sum(timed.batches for timed in blocks)
        busy = [_busy(timed) for timed in self.clean]
        return Rates(
            sustained_per_s=samples * amount / max(seconds + missing_s, seconds / 2),
            sustained_error=_finite(error),
            demand_per_s=samples * self._demand(),
            demand_error=_finite(relative_standard_error(busy)),
            supply_per_s=samples / loaded.pace_s if loaded.pace_s > 0 else samples * self._demand(),
            supply_error=_finite(loaded.relative_error),
            fetch_s=loaded.mean_s,
            fetch_cpu_s=loaded.cpu_s,
            epoch_samples=None if epoch is None else round(epoch * samples),
            epoch_edge_s=edge_s,
            whole_epochs=self._whole,
        )

    def _demand(self) -> float:
        """Micro-batches per second while a batch is ready."""
        blocks = self.clean
        busy_s = math.fsum(_busy(timed).seconds for timed in blocks)
        return sum(timed.batches for timed in blocks) / max(busy_s, 1e-9)

    def _shares(self, blocks: Sequence[TimedBlock], loaded: Loading | None) -> list[Share]:
        """What lasts of each block: what the loop took where the loader is clearly faster, what the workers loaded
        where it is clearly slower, else the smaller of the two."""
        taken = [Share(float(timed.batches), timed.going_on_s) for timed in blocks]
        if self._whole or loaded is None or not self._log.workers:
            return taken
        if loaded.cpu_s is not None and self._competes(blocks, loaded):
            return [self._on_busy_cores(timed, loaded.mean_s, loaded.cpu_s) for timed in blocks]
        slower = loaded.pace_s * self._demand()
        if slower * _CLEARLY_FASTER < 1:
            return taken
        produced = [Share(self._produced(timed, loaded.mean_s), timed.block.seconds) for timed in blocks]
        if not any(share.batches for share in produced):  # all of an epoch is dispatched, and nothing of the next
            return taken
        return produced if slower > _CLEARLY_FASTER else min(produced, taken, key=_rate)

    def _competes(self, blocks: Sequence[TimedBlock], loaded: Loading) -> bool:
        """Whether loading takes time from training, because it computes for the most part, and so do all cores."""
        if not self._shares_cores or not self._log.workers or not all(map(_keeps_cores_busy, blocks)):
            return False
        return self._waiting_share(loaded, _cores(blocks[0])) < _MOSTLY

    def _on_busy_cores(self, timed: TimedBlock, usual_s: float, cpu_s: float) -> Share:
        """Where every core computes, what the workers load beyond what is trained on is time that training lacks; once
        the queue is full they load no more than that."""
        surplus_s = (self._produced(timed, usual_s) - timed.batches) * cpu_s / _own_load(timed)
        return Share(float(timed.batches), max(timed.going_on_s - surplus_s, timed.going_on_s / 2))

    def _produced(self, timed: TimedBlock, usual_s: float) -> float:
        if timed.produced is not None:
            return timed.produced
        produced = self._log.produced(timed.began_s, timed.ended_s, usual_s)
        if self.timed[-1].ended_s - timed.ended_s > _ENDED * usual_s:
            timed.produced = produced
        return produced

    def _clear_of_edges(self, blocks: Sequence[TimedBlock]) -> list[TimedBlock]:
        """Blocks in the middle of an epoch, where its start and its end, at which workers idle, are far; all blocks
        where whole epochs were timed, or too few lie in the middle."""
        middle = [timed for timed in blocks if not self._near_edge(timed)]
        return list(blocks) if self._whole or len(middle) < _FEWEST_CLEAR_OF_EDGES else middle

    def _near_edge(self, timed: TimedBlock) -> bool:
        epoch = self._log.epoch_batches
        if self._edges(timed):
            return True
        return epoch is not None and self._log.position_after(timed.end_take) > epoch - self._log.capacity

    def _edges(self, timed: TimedBlock) -> int:
        return self._log.edges_between(timed.first_take, timed.end_take)

    def _edge_s(self, blocks: Sequence[TimedBlock], loaded: Loading) -> float:
        """What an epoch's edge costs: where training is the limit, as measured beside `blocks`, which lie in the
        middle; else as calculated, because batches come in bursts."""
        epoch = self._log.epoch_batches
        if epoch is None:
            return 0.0
        restarts = [one.restart_s for one in self._log.epochs[1:]]
        restart_s = statistics.fmean(restarts) if restarts else 0.0
        if self._competes(blocks, loaded):
            # What cores load at an edge, they need not load later: what counts is who idles.
            return restart_s + self._idle_share(loaded, _cores(blocks[0])) * self._calculated_edge_s(epoch, loaded)
        training_limits = loaded.pace_s * self._demand() < 1
        near = [] if self._whole else [timed for timed in self.clean if timed not in blocks]
        edges = sum(map(self._edges, near))
        if edges and training_limits and not self._is_all_queued(blocks, loaded):
            middle_s = sum(timed.batches for timed in near) / _rate(self._shares(blocks, loaded))
            return max(math.fsum(timed.going_on_s for timed in near) - middle_s, 0.0) / edges
        edge_s = self._calculated_edge_s(epoch, loaded) + restart_s
        return max(edge_s - (self._ahead_s(blocks) if training_limits else 0.0), 0.0)

    def _ahead_s(self, blocks: Sequence[TimedBlock]) -> float:
        """By how much the host runs ahead of its device. One that nothing held up in a whole block would have run on:
        how far, no short block can show."""
        ahead_s = statistics.median(timed.backlog_s for timed in blocks)
        whole_s = statistics.median(timed.going_on_s for timed in blocks)
        return ahead_s if ahead_s < _HELD_UP * whole_s else max(ahead_s, _USUALLY_AHEAD / self._demand())

    def _is_all_queued(self, blocks: Sequence[TimedBlock], loaded: Loading) -> bool:
        """Whether an epoch is too short for the queue to come to a state of its own, and was not timed as a whole: it
        has no middle, and is calculated from both sides' rates."""
        epoch = self._log.epoch_batches
        if epoch is None or self._whole or self._competes(blocks, loaded):
            return False
        return epoch <= _SHORT_EPOCH * self._log.capacity

    def _calculated_pace_s(self, loaded: Loading) -> float:
        return prefetch_queue.pace(
            workers=self._log.workers,
            prefetch=_prefetch(self._log),
            fetch_s=loaded.fetch_s,
            step_s=1 / self._demand(),
        )

    def _idle_share(self, loaded: Loading, cores: int) -> float:
        """Of the cores, while training waits for an epoch's first batches and the workers load."""
        waiting = self._waiting_share(loaded, cores)
        return waiting + (1 - waiting) * max(1 - self._log.workers / cores, 0.0)

    def _waiting_share(self, loaded: Loading, cores: int) -> float:
        """Of a fetch: it waits for more than for cores as far as it takes longer than its computing does beside
        training and all other workers."""
        beside = 1 + self._log.workers / cores
        return max(1 - (loaded.cpu_s or 0.0) * beside / loaded.mean_s, 0.0)

    def _calculated_edge_s(self, epoch: int, loaded: Loading) -> float:
        if not self._log.workers:
            return 0.0
        return prefetch_queue.edge_seconds(
            epoch,
            workers=self._log.workers,
            prefetch=_prefetch(self._log),
            fetch_s=loaded.fetch_s,
            step_s=1 / self._demand(),
        )

    def _waited_s(self, taken: range) -> float:
        """For batches that were not ready, beyond what taking a ready one takes."""
        ready = [self._log.was_loaded(take) for take in taken]
        waits = [self._log.takes[take].waited_s for take in taken]
        usual = [wait for wait, loaded in zip(waits, ready, strict=True) if loaded]
        usual_s = statistics.median(usual) if usual else 0.0
        return math.fsum(max(wait - usual_s, 0.0) for wait, loaded in zip(waits, ready, strict=True) if not loaded)


def _own_load(timed: TimedBlock) -> float:
    machine = timed.block.machine
    return (machine.own_load or 0.0) if machine else 0.0


def _cores(timed: TimedBlock) -> int:
    machine = timed.block.machine
    return (machine.cores if machine else None) or 1


def _keeps_cores_busy(timed: TimedBlock) -> bool:
    machine = timed.block.machine
    if machine is None or machine.cores is None or not machine.own_load:
        return False
    return machine.own_load + (machine.outside_load or 0.0) > _BUSY_SHARE * machine.cores


def _busy(timed: TimedBlock) -> Block:
    """A block without the waiting for data."""
    block = timed.block
    return block.model_copy(update={"seconds": max(block.seconds - timed.waited_s, 1e-9)})


def _sum(shares: Sequence[Share]) -> Share:
    return Share(math.fsum(share.batches for share in shares), math.fsum(share.seconds for share in shares))


def _rate(shares: Sequence[Share]) -> float:
    batches, seconds = _sum(shares)
    return batches / seconds


def _finite(error: float) -> float:
    """Of one value alone nobody knows the error: as large as the value."""
    return error if math.isfinite(error) else 1.0
