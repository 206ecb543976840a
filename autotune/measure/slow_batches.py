"""Batches that take several times as long to load as the others: they belong to a figure as often as they come.

Blocks hold few of them, or none. How often they come, all that the process has loaded knows better than its blocks.
"""

from __future__ import annotations

import math
import statistics

import numpy as np
from numpy.typing import NDArray

from autotune.measure.loader_log import LoaderLog

_SLOW = 4.0
"""Times the median."""
_FEWEST_BATCHES = 64
"""Loaded before a trial may end early: one in fifty may be slow."""
_FEWEST_SLOW = 3
"""In the blocks, where there are any."""


def have_been_timed(log: LoaderLog, began_s: float) -> bool:
    """Whether slow batches, if there are any, are in the blocks, which began at `began_s`, as often as they come."""
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


def are_missing(log: LoaderLog, began_s: float, *, beside_a_device: bool) -> bool:
    """Whether loader processes have loaded slow batches, and in the blocks, which began at `began_s`, so few that they
    say little of what these cost. Earlier epochs do not count: their files may have been cold.

    `beside_a_device`, which still works on what came before when a batch is late: a block begins without that, and
    shows too much.
    """
    known = [fetch.seconds for fetch in log.since(log.epoch_began_s(began_s)) if not fetch.first]
    slow_s = _SLOW * statistics.median_high(known) if known else math.inf
    slow = sum(one > slow_s for one in known)
    timed = sum(fetch.seconds > slow_s for fetch in log.since(began_s))
    return slow > 0 and timed < (_FEWEST_SLOW if beside_a_device else min(slow, _FEWEST_SLOW))


def are_slow(seconds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of them take several times as long as the others."""
    return seconds > _SLOW * np.median(seconds)


def as_often_as_they_come(chosen: NDArray[np.float64], every: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """`chosen`, with as many slow ones among them as among `every`: what the others take is seen in a few, how often
    slow ones come is not. At most so many."""
    slow = every[every > _SLOW * np.median(chosen)]
    if not len(slow):
        return chosen
    usual = chosen[~are_slow(chosen)]
    count = min(len(every), most)
    slow = slow[-max(round(len(slow) * count / len(every)), 1) :]
    return np.concatenate([np.resize(usual, count - len(slow)), slow])


def stall_error(log: LoaderLog, *, batches: float, seconds: float) -> float:
    """Relative standard error of the time that so many batches took, from not knowing how many slow ones there should
    have been among them; of a loop that loads by itself. With loader processes a queue may hide them: 0.

    They come independently of each other, so that the variance of their number is their expected number.
    """
    if log.workers or len(log.takes) < 2:
        return 0.0
    waits = [take.waited_s for take in log.takes[1:]]  # the first one has started up
    usual_s = statistics.median(waits)
    longer = [wait_s - usual_s for wait_s in waits if wait_s > _SLOW * usual_s]
    if not longer:
        return 0.0
    expected = batches * len(longer) / len(waits)
    return math.sqrt(expected) * math.fsum(longer) / len(longer) / seconds
