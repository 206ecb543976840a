"""Gates on the first optimizer step's gradient, against the reference's from the same weights and the same samples.

No trajectory has had time to diverge there, so that they tell more than any late loss.
"""

from __future__ import annotations

import math

from autotune.records import Check, FirstGradient
from autotune.stats import written

_LOWEST_COSINE = 0.99
_MOST_UNDERFLOW = 0.05


def first_gradient_cosine(probe: FirstGradient | None, reference: FirstGradient | None) -> Check:
    """Cosine between the two gradients; a warning below 0.99.

    PyTorch's own accuracy check of compiled training asks for the same 0.99 (`torch/_dynamo/utils.py`). Low precision
    turns the gradients of deep, freshly initialised networks by more than that without harm, hence no refusal.
    """
    if probe is None or reference is None:
        return _not_seen("first_gradient_cosine", _LOWEST_COSINE, warns_only=True)
    product = math.fsum(a * b for a, b in zip(probe.sketch, reference.sketch, strict=True))
    norms = _norm(probe.sketch) * _norm(reference.sketch)
    cosine = product / norms if norms > 0 else 0.0
    return Check(
        name="first_gradient_cosine",
        passed=cosine >= _LOWEST_COSINE,
        value=round(cosine, 6),
        limit=_LOWEST_COSINE,
        detail=f"norm {written(probe.norm)}, the reference's {written(reference.norm)}",
        warns_only=True,
    )


def gradient_underflow(probe: FirstGradient | None, reference: FirstGradient | None) -> Check:
    """Share of the gradient's elements that are exactly zero, but are not in the reference: what has underflowed.

    fp16 rounds what is below 2⁻²⁵ to zero, and some networks then diverge, which is why mixed-precision training scales
    its loss (Micikevicius et al., Mixed Precision Training, ICLR 2018, section 3.2). The limit is ours.
    """
    if probe is None or reference is None:
        return _not_seen("gradient_underflow", _MOST_UNDERFLOW, warns_only=False)
    lost = max(probe.zero_share - reference.zero_share, 0.0)
    return Check(name="gradient_underflow", passed=lost <= _MOST_UNDERFLOW, value=lost, limit=_MOST_UNDERFLOW)


def _norm(sketch: list[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in sketch))


def _not_seen(name: str, limit: float, *, warns_only: bool) -> Check:
    """No run reached a first step with a finite gradient: other gates say why."""
    return Check(
        name=name,
        passed=True,
        value=0.0,
        limit=limit,
        detail="no gradient to compare",
        warns_only=warns_only,
        conclusive=False,
    )
