"""What a constraint means: comparisons of figures, joined by and / or, each with how far it is violated."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

_LARGEST_VIOLATION = 1e9
"""Samplers take no infinity."""
_LEAST_VIOLATION = 1e-9
"""Violation of a strict comparison between equal values: violated, by nothing."""

Operand = Callable[[Mapping[str, Any]], Any]
"""The value of one side; None if a measure that it names is absent. Raises ArithmeticError and TypeError."""


class Condition(Protocol):
    """Decides on values by name; a name without a value is absent."""

    def violation(self, values: Mapping[str, Any]) -> float:
        """At most 0 where it holds; above, how far it is from holding."""

    def negated(self) -> Condition:
        """What holds exactly where this does not, but for comparisons that cannot be made: those hold either way."""


@dataclass(frozen=True)
class Absent:
    """The word `none`: what a knob without effect has, and the value of that name of other knobs."""

    def is_met_by(self, value: object) -> bool:
        return value is None or value == "none"


NONE = Absent()
_RELATIONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "==", "in": "not in", "not in": "in"}


@dataclass(frozen=True)
class Comparison:
    """`left` and `right` of one relation. `limit_is_left`: the side that names nothing, which the other is held to."""

    left: Operand
    relation: str
    right: Operand
    limit_is_left: bool = False

    def negated(self) -> Condition:
        return Comparison(self.left, _OPPOSITE[self.relation], self.right, self.limit_is_left)

    def violation(self, values: Mapping[str, Any]) -> float:
        try:
            return self._violation(self.left(values), self.right(values))
        except (ArithmeticError, TypeError):
            return 1.0

    def sides(self, values: Mapping[str, Any]) -> tuple[float, float] | None:
        """The figure and its limit, where both are numbers."""
        try:
            left, right = self.left(values), self.right(values)
        except (ArithmeticError, TypeError):
            return None
        if not (_is_number(left) and _is_number(right)):
            return None
        try:
            return (float(right), float(left)) if self.limit_is_left else (float(left), float(right))
        except OverflowError:
            return None

    def _violation(self, left: Any, right: Any) -> float:
        if left is NONE or right is NONE:
            return self._of_presence(left if right is NONE else right)
        if left is None or right is None:
            return -1.0
        if _is_number(left) and _is_number(right) and self.relation != "!=":
            return self._excess(left, right)
        return -1.0 if _RELATIONS[self.relation](left, right) else 1.0

    def _of_presence(self, value: object) -> float:
        return -1.0 if NONE.is_met_by(value) == (self.relation == "==") else 1.0

    def _excess(self, left: float, right: float) -> float:
        holds = _RELATIONS[self.relation](left, right)
        beyond = left - right if self.relation in ("<", "<=") else right - left
        if self.relation == "==":
            beyond = abs(left - right)
        limit = abs(left if self.limit_is_left else right)
        excess = beyond / (limit or 1.0)
        if math.isnan(excess):
            return 1.0
        bounded = min(max(float(excess), -_LARGEST_VIOLATION), _LARGEST_VIOLATION)
        return min(bounded, 0.0) if holds else max(bounded, _LEAST_VIOLATION)


@dataclass(frozen=True)
class Membership:
    """`item in [ … ]`."""

    item: Operand
    relation: str
    members: tuple[object, ...]

    def negated(self) -> Condition:
        return Membership(self.item, _OPPOSITE[self.relation], self.members)

    def violation(self, values: Mapping[str, Any]) -> float:
        try:
            item = self.item(values)
        except (ArithmeticError, TypeError):
            return 1.0
        among = item in self.members or (NONE in self.members and NONE.is_met_by(item))
        if item is None and NONE not in self.members:
            return -1.0
        return -1.0 if among == (self.relation == "in") else 1.0


@dataclass(frozen=True)
class Joined:
    """Several conditions: `and` is as far violated as the worst, `or` as the best of them."""

    parts: Sequence[Condition]
    every: bool

    def negated(self) -> Condition:
        return Joined([part.negated() for part in self.parts], not self.every)

    def violation(self, values: Mapping[str, Any]) -> float:
        violations = [part.violation(values) for part in self.parts]
        return max(violations) if self.every else min(violations)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
