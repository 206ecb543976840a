"""Whether what was timed was the steady state."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.records import Check, TrialResult

_MOST = 0.5
"""Share of the runs that other work on the machine may have kept from settling, the others being right."""


def steady_state(runs: Sequence[TrialResult]) -> Check:
    """The share of the confirming runs whose step time had not settled when timing began: their figure is of a run that
    was still becoming faster, or slower.

    A figure of which most runs are such is not confirmed; the configuration is not refused for it.
    """
    warmed = [run.warm_up for run in runs if run.warm_up]
    unsettled = sum(not warm_up.settled for warm_up in warmed)
    if not unsettled:
        return Check(name="steady_state", passed=True, value=0.0, limit=_MOST, conclusive=bool(warmed))
    detail = f"in {unsettled} of {len(warmed)} runs step times had not settled when timing began; give a larger budget"
    share = unsettled / len(warmed)
    return Check(name="steady_state", passed=share <= _MOST, value=share, limit=_MOST, detail=detail)
