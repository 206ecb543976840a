"""`--set a.b=c`: replaces one value of the spec from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autotune.spec.document import DocPath, DocumentError, Flaw, parse_document


@dataclass(frozen=True)
class Override:
    """A value for one path, and the option that gave it."""

    option: str
    """The option in messages: `--set training.seed=1`."""
    path: DocPath
    value: Any
    flaws: tuple[Flaw, ...] = ()


class OverrideError(ValueError):
    """The text is not an override, or its path does not exist in this document."""


def parse_override(text: str) -> Override:
    """`a.b=c`, its value read as YAML. Raises OverrideError."""
    written, equals, value_text = text.partition("=")
    keys = [key.strip() for key in written.split(".")]
    if not equals or not all(keys):
        raise OverrideError("write it as path=value, for instance --set training.seed=1")
    path = tuple(keys)
    try:
        document = parse_document(value_text)
    except DocumentError as error:
        raise OverrideError(f"{written.strip()}: {error.message}") from None
    flaws = tuple(Flaw((*path, *flaw.path), flaw.message) for flaw in document.flaws)
    return Override(f"--set {shown(text)}", path, document.values, flaws)


def shown(text: str) -> str:
    """`text` on one line, shortened if it is too long."""
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:79]}…"


def apply_override(values: dict[str, Any], path: DocPath, value: Any) -> DocPath:
    """Put `value` at `path`, and create missing mappings; returns the path with list indices as numbers.

    Raises OverrideError if the path leads through a value that is no mapping or list.
    """
    node: Any = values
    taken: list[str | int] = []
    for part in path[:-1]:
        step = _step(node, part, taken)
        taken.append(step)
        if isinstance(node, dict) and node.get(step) is None:
            node[step] = {}
        node = node[step]
    last = _step(node, path[-1], taken)
    node[last] = value
    return (*taken, last)


def _step(node: Any, part: str | int, taken: Sequence[str | int]) -> str | int:
    """`part` as a key for `node`, or as the index of an existing item."""
    where = ".".join(str(step) for step in taken)
    is_index = str(part).isdecimal()
    if isinstance(node, dict) and (node or not is_index):
        return part
    if isinstance(node, list) and is_index and int(part) < len(node):
        return int(part)
    if isinstance(node, list) and node:
        raise OverrideError(f"{where} is a list whose items are {where}.0 to {where}.{len(node) - 1}")
    raise OverrideError(f"{where} holds no {part}; set {where} itself")
