"""The soak: the winner trains for as many steps in a row as the spec asks."""

from __future__ import annotations

import math

from autotune.records import Check, TrialResult
from autotune.stats import Posterior

SOAK = "soak"
SOAK_THROUGHPUT = "soak_throughput"
BUDGET_ENDED = "the budget ended"
"""How the reason begins why there was no soak, or only a short one."""
_CHANCE = 0.003
"""Share of sound soaks that seem to contradict their figure."""

_FEWEST_BLOCKS = 3


def soak(run: TrialResult | None, steps: int) -> Check:
    """The winner trained `steps` optimizer steps in a row without a fault. Value: the steps it trained."""
    done = len(run.steps.losses) if run and run.steps else 0
    ended = f"after {done} of the soak's {steps} steps" if run else "before the soak"
    detail = "" if done >= steps else f"{BUDGET_ENDED} {ended}"
    if run and run.failure:
        detail = run.failure.reason
    return Check(name=SOAK, passed=done >= steps and not (run and run.failure), value=done, limit=steps, detail=detail)


def soak_throughput(run: TrialResult, rate: float, confirmed: Posterior, error: float) -> Check:
    """The soak's throughput over the confirmed one. `rate`: of the soak, in samples per second; `error`: its relative
    standard error; `confirmed`: of ln(samples per second), by the confirming runs.

    It contradicts them where it lies, on either side, outside of what one more run is expected to show: that is as far
    as the figure may be wrong, one process may differ from the next, and the soak is known. Limit: the end of that
    range which is nearer.
    """
    (middle,) = confirmed.quantiles(0.5)
    value = rate / math.exp(middle)
    clean = [block for block in run.blocks if not block.disturbances]
    if len(clean) < _FEWEST_BLOCKS or not math.isfinite(error):
        detail = f"{len(clean)} undisturbed blocks are too few to judge"
        return Check(name=SOAK_THROUGHPUT, passed=True, value=value, limit=0.0, detail=detail, conclusive=False)
    low, high = (math.exp(end - middle) for end in confirmed.of_one_more(error).quantiles(_CHANCE / 2, 1 - _CHANCE / 2))
    detail = f"{rate:,.0f} samples/s in the soak, {math.exp(middle):,.0f} in the confirming runs"
    return Check(
        name=SOAK_THROUGHPUT, passed=low <= value <= high, value=value, limit=low if value < 1 else high, detail=detail
    )
