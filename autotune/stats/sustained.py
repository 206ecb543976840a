"""The figure of one run: what it says that a run of hours sustains; see `docs/measuring.md`."""

from __future__ import annotations

from autotune.records import TrialResult
from autotune.stats.blocks import relative_standard_error, throughput, throughput_interval, undisturbed
from autotune.stats.estimate import Interval, student_t


def sustained_per_s(result: TrialResult) -> float:
    """Samples per second, by the run's rates; of a record without any, over the blocks that nothing disturbed.

    Needs a timed block.
    """
    return result.rates.sustained_per_s if result.rates else throughput(undisturbed(result.blocks))


def sustained_error(result: TrialResult) -> float:
    """Standard error of `sustained_per_s` over its value, inside the run; infinite where one block alone was timed."""
    if result.rates:
        return result.rates.sustained_error
    counted = undisturbed(result.blocks)
    return relative_standard_error(counted if len(counted) > 1 else result.blocks)


def sustained_interval(result: TrialResult) -> Interval | None:
    """95 % interval of `sustained_per_s` from the spread inside the run; None for fewer than two blocks."""
    blocks = undisturbed(result.blocks)
    if result.rates is None or len(blocks) < 2:
        return throughput_interval(blocks)
    centre = result.rates.sustained_per_s
    half = student_t(len(blocks) - 1) * result.rates.sustained_error * centre
    return Interval(max(centre - half, 0.0), centre + half)
