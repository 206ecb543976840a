"""Whether what was timed was the steady state."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.records import Check, TrialResult
from autotune.stats import throughput, undisturbed

_MOST = 0.5
"""Share of the runs that other work on the machine may have kept from settling, the others being right."""
_SETTLED = 0.15
"""Two steps that differ by less than this share are alike, as in a warm-up."""


def steady_state(runs: Sequence[TrialResult]) -> Check:
    """The share of the confirming runs that were still becoming faster, or slower, while they were timed: step times
    had not settled when timing began, and went on changing.

    If most runs are such, the result is not confirmed; the configuration is not refused for it.
    """
    warmed = [run for run in runs if run.warm_up]
    unsettled = sum(not _is_steady(run) for run in warmed)
    if not unsettled:
        return Check(name="steady_state", passed=True, value=0.0, limit=_MOST, conclusive=bool(warmed))
    detail = f"in {unsettled} of {len(warmed)} runs step times had not settled when timing began; give a larger budget"
    share = unsettled / len(warmed)
    return Check(name="steady_state", passed=share <= _MOST, value=share, limit=_MOST, detail=detail)


def _is_steady(run: TrialResult) -> bool:
    """Steps may be so long that a warm-up holds too few of them to tell; the timed ones tell it afterwards."""
    if run.warm_up and run.warm_up.settled:
        return True
    blocks = undisturbed(run.blocks)
    half = len(blocks) // 2
    return half > 0 and abs(throughput(blocks[half:]) / throughput(blocks[:half]) - 1) < _SETTLED
