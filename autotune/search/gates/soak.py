"""The soak: the winner trains on for as long as the spec asks, in one go."""

from __future__ import annotations

import math

from autotune.records import Check, TrialResult
from autotune.stats import throughput

SOAK_THROUGHPUT = "soak_throughput"
_SURE = 2.58
"""One-sided 99.5 % of a normal: of 200 sound soaks one seems to contradict its figure."""

_FEWEST_BLOCKS = 3


def soak(run: TrialResult | None, steps: int) -> Check:
    """The winner trained `steps` optimizer steps in one go without a fault. Value: the steps it trained."""
    done = len(run.steps.losses) if run and run.steps else 0
    missing = "the budget ended before the soak" if steps else ""
    detail = run.failure.reason if run and run.failure else "" if run else missing
    return Check(
        name="soak", passed=done >= steps and not (run and run.failure), value=done, limit=steps, detail=detail
    )


def soak_throughput(run: TrialResult, confirmed: float, *, runs: int, spread: float) -> Check:
    """The soak's throughput over `confirmed`, in samples per second, the figure that `runs` short runs have given.

    Short runs may measure queued batches only; the longest run of all does not. The limit is what one more run may fall
    below the mean of the others by chance. `spread`: standard deviation of the logarithm of
    throughput between runs of one configuration.
    """
    clean = [block for block in run.blocks if not block.disturbances]
    if len(clean) < _FEWEST_BLOCKS:
        detail = f"{len(clean)} undisturbed blocks are too few to tell"
        return Check(name=SOAK_THROUGHPUT, passed=True, value=1.0, limit=0.0, detail=detail, conclusive=False)
    rate = throughput(clean)
    limit = math.exp(-_SURE * spread * math.sqrt(1 + 1 / runs))
    detail = f"{rate:,.0f} samples/s in the soak, {confirmed:,.0f} in the confirming runs"
    passed = rate >= limit * confirmed
    return Check(name=SOAK_THROUGHPUT, passed=passed, value=rate / confirmed, limit=limit, detail=detail)
