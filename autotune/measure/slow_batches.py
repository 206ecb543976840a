"""Batches that take several times as long to load as the others: a rate must include them as often as they occur.

Blocks contain few of them, or none. All batches that the process has loaded show better how often they occur.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autotune.measure.loader_log import LoaderLog, Take
from autotune.records import SlowBatches

_SLOW = 4.0
"""Factor on the median."""
_FEWEST_BATCHES = 64
"""Batches to load before a trial may end early: one in fifty may be slow."""
_SELDOM = 0.1
"""Share of the batches: if more are slow, the machine or the way of loading is different."""
_FEWEST_SLOW = 3
"""Fewest slow batches in the blocks, if there are any."""


def have_been_timed(log: LoaderLog, began_s: float) -> bool:
    """Whether the blocks, which began at `began_s`, contain enough slow batches, if there are any."""
    if log.workers:
        known = [fetch.seconds for fetches in log.fetches for fetch in fetches if not fetch.first]
        timed = [fetch.seconds for fetch in log.since(began_s)]
    else:
        known = [take.waited_s for take in log.takes]
        timed = [take.waited_s for take in log.takes if take.asked_s >= began_s]
    if len(known) < _FEWEST_BATCHES:
        return False
    slow_s = _SLOW * statistics.median_high(known)
    return max(known) <= slow_s or sum(one > slow_s for one in timed) >= _FEWEST_SLOW


def slow_batches_of(log: LoaderLog, at_s: float) -> SlowBatches:
    """The slow batches among all that this process has loaded since the start of the epoch at `at_s`: earlier files may
    have been cold.

    With loader processes, it counts batches that started so long ago that a slow one is recognised even if it has not
    ended: among those that have ended, too few are slow. For an iterable data set, it counts those that have ended.
    """
    began_s = log.epoch_began_s(at_s)
    if not log.workers:  # the first includes the start
        known = [take.waited_s for take in log.takes[1:] if take.asked_s >= began_s]
        return _counted(known, _SLOW * statistics.median_high(known)) if known else SlowBatches()
    ended = [fetch for fetch in log.since(began_s) if not fetch.first]
    if not ended:
        return SlowBatches()
    slow_s = _SLOW * statistics.median_high(fetch.seconds for fetch in ended)
    if log.is_stream:  # a process whose part has ended would look busy
        return _counted([fetch.seconds for fetch in ended], slow_s)
    until_s = log.now_s - slow_s
    known = [fetch.seconds for fetch in ended if fetch.start_s <= until_s]
    under_way = [log.now_s - start_s for start_s in log.under_way() if began_s < start_s <= until_s]
    return _counted([*known, *under_way], slow_s)


def _counted(seconds: Sequence[float], slow_s: float) -> SlowBatches:
    slow = [one for one in seconds if one > slow_s]
    usual = [one for one in seconds if one <= slow_s]
    if not slow or not any(usual):  # the clock cannot tell what loading takes
        return SlowBatches(batches=len(seconds))
    return SlowBatches(batches=len(seconds), slow=len(slow), times=statistics.fmean(slow) / statistics.fmean(usual))


def known(log: LoaderLog, at_s: float) -> SlowBatches:
    """The slow batches of this process and of earlier ones; of this process alone if slow batches are then not rare."""
    own = slow_batches_of(log, at_s)
    every = own + log.earlier
    return every if every.slow <= _SELDOM * every.batches else own


def are_missing(log: LoaderLog, began_s: float, *, beside_a_device: bool) -> bool:
    """Whether loader processes have loaded slow batches, but the blocks, which began at `began_s`, contain too few of
    them to show their cost. Earlier epochs do not count: their files may have been cold.

    `beside_a_device`: the device still has earlier work when a batch is late. At the start of a block it has none, so a
    block shows too much delay.
    """
    lately = [fetch.seconds for fetch in log.since(log.epoch_began_s(began_s)) if not fetch.first]
    slow_s = _SLOW * statistics.median_high(lately) if lately else math.inf
    slow = sum(one > slow_s for one in lately)
    timed = sum(fetch.seconds > slow_s for fetch in log.since(began_s))
    every = known(log, began_s)
    if every.slow and every.batches > len(lately):  # all loaded batches show better how often slow ones occur
        return timed < _FEWEST_SLOW
    return slow > 0 and timed < (_FEWEST_SLOW if beside_a_device else min(slow, _FEWEST_SLOW))


def are_slow(seconds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which values are several times as long as the others."""
    return seconds > _SLOW * np.median(seconds)


def as_often_as_they_come(
    chosen: NDArray[np.float64], every: NDArray[np.float64], known: SlowBatches, most: int
) -> NDArray[np.float64]:
    """`chosen` with the share of slow batches that is `known`: a few batches show how long usual ones take, but not how
    often slow ones occur. Returns at most `most` values."""
    usual = chosen[~are_slow(chosen)]
    if not known.slow or not len(usual):
        return chosen
    slow = every[every > _SLOW * np.median(chosen)]
    if not len(slow):
        slow = np.array([known.times * float(usual.mean())])
    count = min(known.batches, most)
    many = max(round(known.slow * count / known.batches), 1)
    return np.concatenate([np.resize(usual, max(count - many, 1)), np.resize(slow[-many:], many)])


def stalls_owed_s(log: LoaderLog, takes: Sequence[Take], at_s: float) -> tuple[float, float]:
    """Seconds that `takes` lack because they contain fewer slow batches than expected (negative: more), and the
    standard deviation of that. Only for a loop that loads by itself: with loader processes a queue may hide slow
    batches.

    Slow batches occur independently, so the standard deviation of their number is its square root.
    """
    every = known(log, at_s)
    waits = [take.waited_s for take in log.takes[1:]]
    if log.workers or not every.slow or not takes or not waits:
        return 0.0, 0.0
    usual_s = statistics.median(waits)
    longer = [take.waited_s - usual_s for take in takes if take.waited_s > _SLOW * usual_s]
    expected_s = len(takes) * every.slow / every.batches * (every.times - 1) * usual_s
    if len(longer) >= _FEWEST_SLOW:
        return 0.0, math.fsum(longer) / math.sqrt(len(longer))
    return expected_s - math.fsum(longer), expected_s / math.sqrt(every.slow)
