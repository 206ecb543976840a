"""The meaning of a constraint: comparisons of values, joined by and / or, each with the amount of its violation."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

_LARGEST_VIOLATION = 1e9
"""Used instead of infinity, which samplers do not accept."""
_LEAST_VIOLATION = 1e-9
"""Violation of a strict comparison between equal values: positive, but almost zero."""

Operand = Callable[[Mapping[str, Any]], Any]
"""Calculates one side; None if a measure that it names is absent. Raises ArithmeticError and TypeError."""


class Condition(Protocol):
    """Decides on a mapping of names to values; a name without a value is absent."""

    def violation(self, values: Mapping[str, Any]) -> float:
        """0 or less if the condition holds; otherwise how far it is violated."""

    def negated(self) -> Condition:
        """The opposite condition. Comparisons that cannot be made hold in both."""


@dataclass(frozen=True)
class Absent:
    """The word `none`: the value of a knob without effect, and the value of other knobs that is called `none`."""

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
    """One relation between `left` and `right`. `limit_is_left`: whether the left side is the limit, because it names
    nothing."""

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
        """The value and its limit, if both are numbers."""
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
    """Several conditions: the violation of `and` is the largest, that of `or` the smallest of them."""

    parts: Sequence[Condition]
    every: bool

    def negated(self) -> Condition:
        return Joined([part.negated() for part in self.parts], not self.every)

    def violation(self, values: Mapping[str, Any]) -> float:
        violations = [part.violation(values) for part in self.parts]
        return max(violations) if self.every else min(violations)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
