"""The spec's own constraints as gates: what a configuration must meet beside being fast and stable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.records import Check, TrialRecord
from autotune.search.figures import figures_of, is_ok
from autotune.spec import MEASURES, Constraint, knob_values


def constraint_check(constraint: Constraint, figures: Mapping[str, Any]) -> Check:
    """Named as the user wrote it; value and limit are the two sides of one comparison of numbers, else the violation.

    `figures`: knobs and measures by name. Where a measure is absent there is nothing to say against the configuration;
    a knob is absent where it does not apply.
    """
    absent = sorted(name for name in constraint.names & MEASURES if figures.get(name) is None)
    violation = constraint.violation(figures)
    value, limit = constraint.sides(figures) or (violation, 0.0)
    return Check(
        name=constraint.text,
        passed=violation <= 0,
        value=value,
        limit=limit,
        detail=f"without {', '.join(absent)}" if absent else "",
        conclusive=not absent or violation > 0,
    )


def violations(record: TrialRecord, constraints: Sequence[Constraint]) -> list[float]:
    """How far the trial is from meeting each constraint, by the figures of its one run; at most 0 where it does.

    A trial without a measurement is judged by its knobs: what it would have measured is absent.
    """
    if not constraints:
        return []
    result = record.result
    figures = figures_of(result.config, [result]) if is_ok(record) else knob_values(result.config)
    return [constraint.violation(figures) for constraint in constraints]


def meets(record: TrialRecord, constraints: Sequence[Constraint], *, within: float = 0.0) -> bool:
    """Whether the trial meets all of them. `within`: how far outside, relative, may be noise."""
    return max(violations(record, constraints), default=0.0) <= within
