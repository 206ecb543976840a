"""How a value is written in the language of a file: one function a language, and no other way into a file.

The result is always one literal, one word or one line, for any input. Python literals also show what an editor would
hide: marks that reverse the writing direction, zero-width characters, line separators.
"""

from __future__ import annotations

import json
import keyword
import math
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from autotune.errors import SpecError


def literal(value: Any) -> str:
    """A plain value as a Python literal, text in double quotes. Raises SpecError for values without a literal."""
    if isinstance(value, str):
        return "".join(map(_visible, json.dumps(value, ensure_ascii=False)))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(key)}: {literal(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(literal, value)) + "]"
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    raise SpecError(f"a {type(value).__name__} of the spec, {str(value)[:60]!r}, cannot be written as Python")


def identifier(dotted: str) -> str:
    """A name, or names with dots between them. Raises SpecError for anything else."""
    if not all(name.isidentifier() and not keyword.iskeyword(name) for name in dotted.split(".")):
        raise SpecError(f"{dotted[:60]!r} is not a name in Python")
    return dotted


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def word(value: Any) -> str:
    """One word of a POSIX shell that is no flag. Raises SpecError for values that a command line cannot contain."""
    text = value if isinstance(value, str) else literal(value)
    if not text.isprintable() or text.startswith("-"):
        raise SpecError(f"{text[:60]!r} cannot be given on a command line; change it in the spec, or export --to yaml")
    return shlex.quote(text)


def comment(lines: Iterable[str]) -> str:
    """`lines` as comments for Python, shell and YAML."""
    return "".join(f"# {one_line(line)}".rstrip() + "\n" for line in lines)


def docstring(title: str, lines: Iterable[str]) -> str:
    """The docstring of a Python module, title first."""
    body = "\n".join(map(one_line, [title, "", *lines])).replace("\\", "\\\\").replace('"""', "'''")
    return f'"""{body}\n"""\n'


def one_line(text: str) -> str:
    """Only printable characters: everything that a terminal, an editor or a parser may treat as a line end becomes a
    space."""
    return "".join(character if character.isprintable() else " " for character in text)


def json_text(document: Any) -> str:
    """A whole JSON file."""
    return json.dumps(document, indent=2, allow_nan=False) + "\n"
