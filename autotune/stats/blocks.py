"""Throughput of the timed blocks of one run, and how far its noise lets it be known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from autotune.records import Block
from autotune.stats.estimate import Interval, student_t

_FEWEST_CHUNKS = 6
"""A standard error from fewer is too rough to choose the largest of."""
_FEWEST_TO_JUDGE_NOISE = 32
_STILL_SHRINKING = 0.85
"""Twice the blocks should bring the error to 0.71 of what it was."""


class _Timed(NamedTuple):
    """What the error of a throughput depends on: of one block, or of several as one."""

    samples: int
    seconds: float


def throughput(blocks: Sequence[Block]) -> float:
    """Samples per second: total over total. Stalled steps alternate with fast ones, so medians of steps mislead."""
    return sum(block.samples for block in blocks) / math.fsum(block.seconds for block in blocks)


def undisturbed(blocks: Sequence[Block]) -> Sequence[Block]:
    """The blocks that count for a figure: those during which the machine was free and unthrottled.

    All of them where none was undisturbed: a machine that is always busy is what there is to measure.
    What decides is the machine's own state, never a block's speed, so that leaving blocks out does not flatter.
    """
    return [block for block in blocks if not block.disturbances] or blocks


def rests_on_disturbed(blocks: Sequence[Block]) -> bool:
    """Whether a figure of `blocks` counts some that other work disturbed, because there are no others."""
    return any(block.disturbances for block in undisturbed(blocks))


def relative_standard_error(blocks: Sequence[Block]) -> float:
    """Standard error of `throughput` over its value; infinite for fewer than two blocks.

    Neighbouring blocks share bursts of other work, which makes the usual formula too confident; so it is also applied
    to chunks of 2, 4, … neighbours as if each were one block (the method of batch means), as long as there are six
    of them, and the largest error counts.
    """
    timed = [_Timed(block.samples, block.seconds) for block in blocks]
    largest, size = _ratio_error(timed), 2
    while len(timed) // size >= _FEWEST_CHUNKS:
        largest = max(largest, _ratio_error(_chunks(timed, size)))
        size *= 2
    return largest


def throughput_interval(blocks: Sequence[Block]) -> Interval | None:
    """95 % interval of `throughput` from the spread between blocks of one run; None for fewer than two blocks.

    It covers the noise inside this run only: another process of the same configuration may differ by more.
    """
    if len(blocks) < 2:
        return None
    centre = throughput(blocks)
    half = student_t(len(blocks) - 1) * relative_standard_error(blocks) * centre
    return Interval(max(centre - half, 0.0), centre + half)


def noise_has_settled(blocks: Sequence[Block]) -> bool:
    """Whether more blocks would hardly narrow the interval: twice as many have not done so, twice in a row.

    Asked of 32, 64, 128, … blocks, for a question that is put after every block is answered by luck some time. nvbench
    ends a measurement by the same thought, on the settling of its noise estimate (`stdrel` criterion).
    """
    count = len(blocks)
    if count < _FEWEST_TO_JUDGE_NOISE or count.bit_count() != 1:
        return False
    quarter, half, whole = (relative_standard_error(blocks[: count // part]) for part in (4, 2, 1))
    return whole > _STILL_SHRINKING * half and half > _STILL_SHRINKING * quarter


def _ratio_error(timed: Sequence[_Timed]) -> float:
    """Relative standard error of Σsamples / Σseconds.

    The ratio estimator's linearised variance (Cochran, Sampling Techniques, 3rd ed., 1977, eq. 2.46 without the finite
    population correction): with R = Σsamples / Σseconds and residuals eᵢ = samplesᵢ − R·secondsᵢ,
    SE(R)/R = √(n/(n−1)·Σeᵢ²) / Σsamples.
    """
    count, samples = len(timed), sum(each.samples for each in timed)
    if count < 2 or not samples:
        return math.inf
    ratio = samples / math.fsum(each.seconds for each in timed)
    squares = math.fsum((each.samples - ratio * each.seconds) ** 2 for each in timed)
    return math.sqrt(count / (count - 1) * squares) / samples


def _chunks(timed: Sequence[_Timed], size: int) -> list[_Timed]:
    """Runs of `size` neighbours, each as one block; what is left over at the end goes without."""
    whole = len(timed) // size * size
    return [_joined(timed[start : start + size]) for start in range(0, whole, size)]


def _joined(timed: Sequence[_Timed]) -> _Timed:
    return _Timed(sum(each.samples for each in timed), math.fsum(each.seconds for each in timed))
