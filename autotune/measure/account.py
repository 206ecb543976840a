"""Calculates rates from timed blocks and the loader's log: what a run of hours gets, and what limits it.

Between two epoch edges, the sustained rate is the smaller of two: what the loop took, and what the loader's processes
loaded in the same time. The edge of an epoch counts as often as there are edges in a long run, (samples ÷ samples of an
epoch) times, even if fewer or more edges were timed.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.measure import cores, prefetch_queue
from autotune.measure.edges import ahead_s, edge_seconds
from autotune.measure.evidence import Evidence, evidence
from autotune.measure.lasting import Share, as_blocks, shares, total
from autotune.measure.loader_log import LoaderLog
from autotune.measure.loading import Loading
from autotune.measure.slow_batches import are_slow, known, slow_batches_of, stalls_owed_s
from autotune.measure.timed_block import TimedBlock, timed_block
from autotune.records import Block, Rates
from autotune.stats import Interval, relative_standard_error, student_t

_USUAL_OF_TWO = 0.6745 * math.sqrt(2)
"""Median of the absolute difference of two normal values, in standard deviations of one value."""


class _Found(NamedTuple):
    state: tuple[int, int, int]
    lasting: list[Block]
    rates: Rates | None


class Account:
    """The timed blocks of one run and the rates that follow from them, calculated once for each state of the log."""

    def __init__(self, log: LoaderLog, *, whole_epochs: bool = False, trains_on_cpu: bool = False) -> None:
        """`whole_epochs`: each block begins and ends with an epoch. `trains_on_cpu`: training and the loader's
        processes compute on the same cores."""
        self._log = log
        self._whole_epochs = whole_epochs
        self._trains_on_cpu = trains_on_cpu
        self.timed: list[TimedBlock] = []
        self._found: _Found | None = None

    def add(self, block: Block, *, began_s: float, asked_s: float, ended_s: float, first_take: int) -> None:
        """Add a block; arguments as for `timed_block`."""
        timed = timed_block(block, self._log, began_s=began_s, asked_s=asked_s, ended_s=ended_s, first_take=first_take)
        self.timed.append(timed)

    def lasting(self) -> list[Block]:
        """The sustained part of the blocks that count, in millionths of batches: their spread is the spread of the
        result.

        Blocks near an epoch's edge are left out if there are others.
        """
        return self._find().lasting

    def rates(self) -> Rates | None:
        """None before the first block, or if no loaded batch has been seen."""
        return self._find().rates

    def interval(self) -> Interval | None:
        """95 % interval of the sustained samples per second, from the spread inside this run."""
        rates, lasting = self.rates(), self.lasting()
        if rates is None or len(lasting) < 2:
            return None
        half = student_t(len(lasting) - 1) * rates.sustained_error * rates.sustained_per_s
        return Interval(max(rates.sustained_per_s - half, 0.0), rates.sustained_per_s + half)

    def _find(self) -> _Found:
        state = len(self.timed), self._log.taken, self._log.finished
        if self._found is None or self._found.state != state:
            self._found = _Found(state, *self._calculated())
        return self._found

    def _calculated(self) -> tuple[list[Block], Rates | None]:
        if not self.timed:
            return [], None
        seen = evidence(self.timed, self._log, whole_epochs=self._whole_epochs, trains_on_cpu=self._trains_on_cpu)
        each = shares(seen)
        lasting = as_blocks(seen.middle, each)
        counted = lasting if len(lasting) > 1 else [timed.busy for timed in self.timed]
        return lasting, rates_of(seen, each, relative_standard_error(counted))


def rates_of(seen: Evidence, each: Sequence[Share], error: float) -> Rates | None:
    """`each`: the sustained part of each block in the middle of an epoch; `error`: its relative standard error."""
    loaded, epoch, log = seen.loaded, seen.log.epoch_batches, seen.log
    if loaded is None:
        return None
    amount, seconds = total(each)
    edge_s = edge_seconds(seen, loaded, amount / seconds)
    edges = sum(timed.edges for timed in seen.middle)
    # The error of a single block that counts is unknown; it is smaller than the error with the disturbed blocks.
    counted = seen.clean if len(seen.clean) > 1 else seen.timed
    demand_error = relative_standard_error([timed.busy for timed in counted])
    began_s = seen.clean[0].began_s
    takes = [take for timed in seen.middle for take in log.takes[timed.first_take : timed.end_take]]
    owed_s, owed_error_s = stalls_owed_s(log, takes, began_s)
    seconds = max(seconds + owed_s, seconds / 2)
    error = max(error, owed_error_s / seconds)
    if seen.may_wait and not seen.whole_epochs and not seen.compete:
        # A fetch spans several blocks, so the blocks differ from each other by less than the error of their mean.
        error = max(error, loaded.relative_error_of(amount))
    if seen.compete and loaded.cpu_s is not None and log.workers:
        # The CPU time to load a batch is the same number in all blocks.
        computed_s = seconds * statistics.fmean(map(cores.own_load, seen.middle))
        share = min(amount * loaded.cpu_s / computed_s, 1.0)
        error = math.hypot(error, share * loaded.cpu_error, cores.counting_error(seen.middle))
    whole = seen.blocks_of_epochs
    if whole and epoch:
        amount, edges = float(sum(timed.batches for timed in whole)), sum(timed.batches for timed in whole) // epoch
        seconds = math.fsum(timed.going_on_s for timed in whole)
        error = max(_error_of_neighbours(whole), loaded.relative_error_of(amount) if seen.may_wait else 0.0)
    elif seen.is_calculated:
        pace_s = _pace_s(seen, loaded.fetch_s)
        amount, edges = float(epoch or amount), 0
        seconds = amount * pace_s
        error = max(loaded.relative_error if seen.is_all_queued else 0.0, demand_error)
        if seen.lacks_slow_batches:
            error = math.hypot(demand_error, _error_of_slow_batches(seen, loaded))
    missing_s = 0.0 if epoch is None else (amount / epoch - edges) * edge_s
    samples = sum(timed.block.samples for timed in seen.middle) / sum(timed.batches for timed in seen.middle)
    return Rates(
        sustained_per_s=samples * amount / max(seconds + missing_s, seconds / 2),
        sustained_error=_finite(error),
        demand_per_s=samples * seen.demand,
        demand_error=_finite(demand_error),
        supply_per_s=samples / loaded.pace_s if loaded.pace_s > 0 else samples * seen.demand,
        supply_error=_finite(loaded.relative_error),
        fetch_s=loaded.mean_s,
        fetch_cpu_s=loaded.cpu_s,
        epoch_samples=None if epoch is None else round(epoch * samples),
        epoch_edge_s=edge_s,
        slow_batches=slow_batches_of(log, began_s),
        whole_epochs=seen.whole_epochs or bool(whole),
    )


def _error_of_neighbours(blocks: Sequence[TimedBlock]) -> float:
    """Relative standard error of the time that training takes, from the differences of neighbouring blocks: over an
    epoch it changes with the loading at the same time, sometimes by a step."""
    paces = [timed.busy.seconds / timed.batches for timed in blocks]
    if len(paces) < 2:
        return math.inf
    usual = statistics.median(abs(later - earlier) for earlier, later in itertools.pairwise(paces))
    return usual / _USUAL_OF_TWO / math.sqrt(len(paces)) / statistics.fmean(paces)


def _pace_s(seen: Evidence, fetch_s: NDArray[np.float64]) -> float:
    """Calculated seconds for each batch in the middle of an epoch. Work that the device still has to do hides part of
    the delay of a slow batch."""
    if seen.lacks_slow_batches:
        late_s = np.maximum(fetch_s - ahead_s(seen.middle, seen.step_s), np.median(fetch_s))
        fetch_s = np.where(are_slow(fetch_s), late_s, fetch_s)
    log = seen.log
    return prefetch_queue.pace(workers=log.workers, prefetch=log.prefetch, fetch_s=fetch_s, step_s=seen.step_s)


def _error_of_slow_batches(seen: Evidence, loaded: Loading) -> float:
    """Relative standard error of the time of an epoch, because few slow batches are known: the standard deviation of
    their number is its square root."""
    slow = are_slow(loaded.fetch_s)
    if not slow.any():
        return 0.0
    share = 1 - _lasts_s(seen, loaded.fetch_s[~slow]) / _lasts_s(seen, loaded.fetch_s)
    return max(share, 0.0) / math.sqrt(max(known(seen.log, seen.clean[0].began_s).slow, 1))


def _lasts_s(seen: Evidence, fetch_s: NDArray[np.float64]) -> float:
    """Seconds for each batch, including the time at an epoch's edge."""
    log, epoch = seen.log, seen.log.epoch_batches
    pace_s = _pace_s(seen, fetch_s)
    if epoch is None:
        return pace_s
    return (
        pace_s
        + prefetch_queue.edge_seconds(
            epoch, workers=log.workers, prefetch=log.prefetch, fetch_s=fetch_s, step_s=seen.step_s
        )
        / epoch
    )


def _finite(error: float) -> float:
    """The error; 100 % if it is unknown because there is only one value."""
    return error if math.isfinite(error) else 1.0
