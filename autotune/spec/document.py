"""Parses YAML text into plain values, with the position of every key and value, so that each problem can name its line.

Merge keys and anchors work; the size of their expansion is limited.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from yaml.composer import Composer
from yaml.error import MarkedYAMLError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.scanner import Scanner

from autotune.spec.scalars import TAG, CoreResolver, scalar_value
from autotune.spec.syntax import explain_syntax

DocPath = tuple[str | int, ...]
"""Keys and list indices from the top of the document down to a value."""

_HALF = re.compile("[\ud800-\udfff]")
MAX_NODES = 20_000
MAX_DEPTH = 50


class Position(NamedTuple):
    """Where a key or value starts, counted from 1."""

    line: int
    column: int


class DocumentError(Exception):
    """The text is not a YAML document, so no other problem can be reported."""

    def __init__(self, position: Position, message: str) -> None:
        self.position = position
        self.message = message
        super().__init__(message)


class Flaw(NamedTuple):
    """A problem at one position of a document."""

    path: DocPath
    message: str
    position: Position | None = None
    """None: the position of `path`."""
    at_key: bool = False
    """Whether the key itself is wrong, not its value."""


@dataclass(frozen=True)
class Document:
    """Values and their positions; `flaws` are the mistakes that YAML allows but a spec does not."""

    values: Any
    keys: dict[DocPath, Position] = field(default_factory=dict)
    positions: dict[DocPath, Position] = field(default_factory=dict)
    flaws: list[Flaw] = field(default_factory=list)


class _Composer(Reader, Scanner, Parser, Composer, CoreResolver):
    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        CoreResolver.__init__(self)


def parse_document(text: str) -> Document:
    """The one document in `text`; values is None for an empty one. Raises DocumentError on broken YAML."""
    try:
        node = _Composer(text).get_single_node()
        builder = _Builder()
        values = None if node is None else builder.build(node, ())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
        raise DocumentError(position, explain_syntax(error)) from None
    except ReaderError as error:
        before = text[: error.position]
        position = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise DocumentError(
            position, f"the character U+{ord(text[error.position]):04X} is not allowed in YAML"
        ) from None
    except RecursionError:
        raise DocumentError(Position(1, 1), "nested too deeply") from None
    return Document(values, builder.keys, builder.positions, builder.flaws)


def _start(node: Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)


def _unsupported(node: Node) -> str:
    return f"the tag {node.tag.replace(TAG, '!!')} is not supported"


class _Builder:
    """Converts nodes to values, and records positions and flaws."""

    def __init__(self) -> None:
        self.keys: dict[DocPath, Position] = {}
        self.positions: dict[DocPath, Position] = {}
        self.flaws: list[Flaw] = []
        self._open: list[Node] = []
        self._nodes = 0

    def build(self, node: Node, path: DocPath) -> Any:
        self.positions[path] = _start(node)
        self._enter(node)
        if not isinstance(node, ScalarNode) and node.tag not in (f"{TAG}map", f"{TAG}seq"):
            self._flaw(path, _unsupported(node), node)
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, path)
            if isinstance(node, SequenceNode):
                return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self._open.pop()

    def _enter(self, node: Node) -> None:
        """Limit the expansion of aliases: it may be endless, or double with every line."""
        self._nodes += 1
        if any(node is outer for outer in self._open):
            raise DocumentError(_start(node), "an alias in here refers to the value that contains it")
        if self._nodes > MAX_NODES:
            raise DocumentError(_start(node), f"more than {MAX_NODES:,} values, aliases expanded; this is not a spec")
        if len(self._open) > MAX_DEPTH:
            raise DocumentError(_start(node), f"nested too deeply: more than {MAX_DEPTH} levels")
        self._open.append(node)

    def _mapping(self, node: MappingNode, path: DocPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in self._entries(node, path):
            key = self._key(key_node, path)
            if key not in values:
                self.keys[(*path, key)] = _start(key_node)
                values[key] = self.build(value_node, (*path, key))
        return values

    def _entries(self, node: MappingNode, path: DocPath) -> Iterator[tuple[Node, Node]]:
        """The node's own entries, then the merged ones: the first entry of a key applies."""
        merged: list[Node] = []
        seen: dict[str, Position] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{TAG}merge":
                merged += value_node.value if isinstance(value_node, SequenceNode) else [value_node]
                continue
            if isinstance(key_node, ScalarNode) and key_node.value in seen:
                first = seen[key_node.value]
                message = f"duplicate key; it is already at line {first.line}, column {first.column}"
                self._flaw((*path, key_node.value), message, key_node)
                continue
            seen[str(key_node.value)] = _start(key_node)
            yield key_node, value_node
        for source in merged:
            if not isinstance(source, MappingNode):
                self._flaw((*path, "<<"), "a merge key takes a mapping, or a list of mappings", source)
                continue
            self._enter(source)
            yield from self._entries(source, path)
            self._open.pop()

    def _key(self, node: Node, path: DocPath) -> str:
        self._nodes += 1
        if isinstance(node, ScalarNode) and node.tag == f"{TAG}str":
            return str(node.value)
        key = str(node.value) if isinstance(node, ScalarNode) else "?"
        advice = f"; write '{key}' with quotes" if key != "?" else ", not a list or a mapping"
        self._flaw((*path, key), f"a key is text{advice}", node)
        return key

    def _scalar(self, node: Node, path: DocPath) -> Any:
        kind, text = node.tag.removeprefix(TAG), str(node.value)
        try:
            value = scalar_value(kind, text)
        except KeyError:
            self._flaw(path, _unsupported(node), node)
            return None
        except ValueError:
            self._flaw(path, f"{text[:40]!r} cannot be read as {kind}", node)
            return None
        if isinstance(value, float) and not math.isfinite(value):
            self._flaw(path, f"must be a finite number, not {text[:40]}", node)
        if _HALF.search(text):
            self._flaw(path, f"{text[:40]!r} contains half of a surrogate pair, which no file can hold", node)
        return value

    def _flaw(self, path: DocPath, message: str, node: Node) -> None:
        """Record a flaw once per position, even if several aliases lead there."""
        position = _start(node)
        if not any(flaw.position == position for flaw in self.flaws):
            self.flaws.append(Flaw(path, message, position))
