"""The soak: the winner trains on for as long as the spec asks, in one go."""

from __future__ import annotations

from autotune.records import Check, TrialResult


def soak(run: TrialResult | None, steps: int) -> Check:
    """The winner trained `steps` optimizer steps in one go without a fault. Value: the steps it trained."""
    done = len(run.steps.losses) if run and run.steps else 0
    missing = "the budget ended before the soak" if steps else ""
    detail = run.failure.reason if run and run.failure else "" if run else missing
    return Check(
        name="soak", passed=done >= steps and not (run and run.failure), value=done, limit=steps, detail=detail
    )
