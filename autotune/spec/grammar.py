"""The grammar of constraints: known words, and the part of Python's grammar that is listed here."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from autotune.config import TrainConfig
from autotune.spec.conditions import NONE, Comparison, Condition, Joined, Membership, Operand
from autotune.spec.tokens import CONNECTIVES, Token, place, suggestion, tokens
from autotune.spec.vocabulary import LITERALS, OF_TEXT, Vocabulary

MAX_DEPTH = 24
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_RELATIONS: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.In: "in",
    ast.NotIn: "not in",
}
_ORDERING = ("<", "<=", ">", ">=")


class Reader:
    """Converts Python's syntax tree to conditions; refuses everything that is not handled here."""

    def __init__(self, vocabulary: Vocabulary, source: Source) -> None:
        self._source = source
        self._names: set[str] = set()
        self._python = source.python(vocabulary)

    def read(self) -> tuple[frozenset[str], Condition]:
        try:
            tree = ast.parse(self._python, mode="eval").body
        except SyntaxError as error:
            raise ValueError(f"cannot be read {self._source.place_of(error)}: {_why(error)}") from None
        except (MemoryError, RecursionError):
            raise ValueError("is nested too deeply") from None
        self._bound(tree)
        condition = self._condition(tree)
        return frozenset(self._names), condition

    def _condition(self, node: ast.expr) -> Condition:
        if isinstance(node, ast.BoolOp):
            return Joined([self._condition(part) for part in node.values], isinstance(node.op, ast.And))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return self._condition(node.operand).negated()
        if isinstance(node, ast.Compare):
            return self._comparisons(node)
        if isinstance(node, ast.Name):
            raise self._error(node, f"'{node.id}' alone compares nothing; write for instance {_for_instance(node.id)}")
        raise self._error(node, "this compares nothing; write a comparison, such as micro_batch_size <= 64")

    def _comparisons(self, node: ast.Compare) -> Condition:
        sides = [node.left, *node.comparators]
        relations = [_RELATIONS.get(type(relation), "") for relation in node.ops]
        parts = [
            self._comparison(left, relation, right)
            for left, relation, right in zip(sides, relations, sides[1:], strict=False)
        ]
        return parts[0] if len(parts) == 1 else Joined(parts, every=True)

    def _comparison(self, left: ast.expr, relation: str, right: ast.expr) -> Condition:
        if not (_names_something(left) or _names_something(right)):
            raise self._error(left, "this comparison names no knob and no measure, so its result is always the same")
        if ast.dump(left) == ast.dump(right):
            raise self._error(left, "both sides are the same, so the result of the comparison is always the same")
        if relation in ("in", "not in"):
            members = self._members(right)
            for item in right.elts if isinstance(right, ast.List) else ():
                self._require_choice(left, item)
            return Membership(self._value(left), relation, members)
        if not relation:
            raise self._error(left, "compare with <, <=, >, >=, ==, != or in")
        if relation in _ORDERING:
            self._require_number(left)
            self._require_number(right)
        self._require_choice(left, right)
        self._require_choice(right, left)
        limit_is_left = not _names_something(left)
        return Comparison(self._value(left), relation, self._value(right), limit_is_left)

    def _members(self, node: ast.expr) -> tuple[object, ...]:
        if not isinstance(node, ast.List) or not node.elts:
            raise self._error(node, "a list of values is needed here, such as [1, 2, 4]")
        return tuple(self._constant(item) for item in node.elts)

    def _constant(self, node: ast.expr) -> object:
        negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
        inner = node.operand if isinstance(node, ast.UnaryOp) and negative else node
        if not isinstance(inner, ast.Constant) or (negative and type(inner.value) not in (int, float)):
            raise self._error(node, "a list holds values only")
        if negative:
            return -inner.value  # type: ignore[operator]
        return NONE if inner.value is None else inner.value

    def _value(self, node: ast.expr) -> Operand:
        if isinstance(node, ast.Name):
            name = node.id
            self._names.add(name)
            return lambda values: values.get(name)
        if isinstance(node, ast.Constant):
            constant = NONE if node.value is None else node.value
            return lambda _values: constant
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            self._require_number(node.operand)
            negated = self._value(node.operand)
            return lambda values: None if (value := negated(values)) is None else -value
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return self._arithmetic(node)
        raise self._error(node, f"{_kind(node)} is not allowed here")

    def _arithmetic(self, node: ast.BinOp) -> Operand:
        self._require_number(node.left)
        self._require_number(node.right)
        compute = _ARITHMETIC[type(node.op)]
        left, right = self._value(node.left), self._value(node.right)

        def value(values: Mapping[str, Any]) -> Any:
            first, second = left(values), right(values)
            if first is None or second is None:
                return None
            if isinstance(first, str) or isinstance(second, str):
                raise TypeError("text has no arithmetic")
            return compute(first, second)

        return value

    def _require_number(self, node: ast.expr) -> None:
        is_text = isinstance(node, ast.Constant) and not isinstance(node.value, int | float)
        if is_text or (isinstance(node, ast.Name) and node.id in OF_TEXT):
            raise self._error(node, "a number is needed here; text has neither size nor order, use ==, != or in")

    def _require_choice(self, node: ast.expr, other: ast.expr) -> None:
        if not (isinstance(node, ast.Name) and node.id in OF_TEXT and isinstance(other, ast.Constant)):
            return
        choices = get_args(OF_TEXT[node.id])
        if other.value is not None and other.value not in choices:
            raise self._error(other, f"{node.id} is one of {', '.join(choices)}")

    def _bound(self, tree: ast.expr) -> None:
        """Limit the depth of the tree; without recursion, because recursion is what must be limited."""
        open_nodes = [(tree, 0)]
        while open_nodes:
            node, depth = open_nodes.pop()
            if depth > MAX_DEPTH:
                raise self._error(node, f"nested too deeply: more than {MAX_DEPTH} levels")
            open_nodes += [(part, depth + 1) for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]

    def _error(self, node: ast.expr, message: str) -> ValueError:
        return ValueError(f"{self._source.place(node.col_offset)}: {message}")


def _names_something(node: ast.expr) -> bool:
    return any(isinstance(part, ast.Name) for part in ast.walk(node))


def _for_instance(name: str) -> str:
    if name in OF_TEXT:
        return f"{name} == {get_args(OF_TEXT[name])[0]}"
    return f"{name} == true" if isinstance(getattr(TrainConfig(), name, None), bool) else f"{name} <= 8"


def _kind(node: ast.expr) -> str:
    kinds: Sequence[tuple[type[ast.expr], str]] = (
        (ast.Compare, "a comparison"),
        (ast.BoolOp, "a condition"),
        (ast.List, "a list"),
        (ast.Tuple, "a comma"),
        (ast.Call, "a call"),
        (ast.Subscript, "an index"),
    )
    return next((words for kind, words in kinds if isinstance(node, kind)), "this")


def _why(error: SyntaxError) -> str:
    said = str(error.msg)
    return "too deeply nested" if "nested" in said else "something is missing or out of place"


class Source:
    """A constraint's text, with the origin of each piece of its Python spelling."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._origins: list[tuple[int, int]] = []

    def python(self, vocabulary: Vocabulary) -> str:
        """A Python expression that contains only known names, literals and signs."""
        spelt = ""
        pieces = list(tokens(self.text, vocabulary.hyphenated))
        for token, following in zip(pieces, [*pieces[1:], None], strict=True):
            self._origins.append((len(spelt.encode()), token.at))
            spelt += f"{_spelling(token, following, vocabulary)} "
        return spelt

    def place_of(self, error: SyntaxError) -> str:
        offset = (error.offset or 0) - 1
        return self.place(offset) if offset >= 0 else "at its end"

    def place(self, offset: int) -> str:
        """The position in the text of the piece at byte `offset` of the expression."""
        return place(max((at for start, at in self._origins if start <= offset), default=0))


def _spelling(token: Token, following: Token | None, vocabulary: Vocabulary) -> str:
    word = token.source
    if token.kind != "word" or word in CONNECTIVES:
        return word
    if following is not None and following.source == "(" and word not in vocabulary.words:
        raise ValueError(f"'{word}(' {place(token.at)} is a call, which a constraint cannot contain")
    if word in vocabulary.names:
        return word
    if word in LITERALS:
        return LITERALS[word]
    if word in vocabulary.words:
        return repr(word)
    known = sorted(vocabulary.names | vocabulary.words)
    raise ValueError(f"unknown name '{word}' {place(token.at)}{suggestion(word, known) or _HELP}")


_HELP = "; names are those of the knobs and of the measures, text stands in quotes"
