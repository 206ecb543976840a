"""Splits a constraint's text into words, numbers and signs with their positions; converts units to plain numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Literal, NamedTuple

UNITS = {
    "bytes": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "s": 1,
    "ms": 0.001,
}
"""Units that may follow a number: for bytes and seconds, the units of the measures. A share may be given in %."""
CONNECTIVES = ("and", "or", "not", "in")
_LARGEST = 1e300
_BOUNDARY = r"(?![\w.])"
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
        (?:\s*(?P<percent>%)|\s*(?P<unit>[^\W\d]\w*))?
      | (?P<text>'[^'\\]*'|"[^"\\]*")
      | (?P<word>[^\W\d]\w*)
      | (?P<sign><=|>=|==|!=|//|\*\*|<>|[-+*/%<>()\[\],])
    )""",
    re.VERBOSE,
)
_INSTEAD = {
    "=": "write == for equality",
    "≤": "write <=",
    "≥": "write >=",
    "≠": "write !=",
    "×": "write *",
    "!": "write not",
    "&": "write and",
    "|": "write or",
    ".": "a name contains no dots, and cannot be called",
    "{": "give a list in [ ]",
}

_REFUSED = {"**": "write a power as a product", "<>": "write !="}


class Token(NamedTuple):
    """One piece of a constraint. `source` is its spelling in Python; for words it is the word itself."""

    kind: Literal["number", "text", "word", "sign"]
    source: str
    at: int
    """Position in the text, counted from 0."""


def place(at: int) -> str:
    return f"at character {at + 1}"


def suggestion(word: str, known: Collection[str]) -> str:
    alike = [name for name in known if name.lower() == word.lower()]
    close = alike or get_close_matches(word, known, n=1) or get_close_matches(word.lower(), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def tokens(text: str, hyphenated: Collection[str]) -> Iterator[Token]:
    """The pieces of `text`; `hyphenated` are words with a `-` inside. Raises ValueError."""
    words = sorted(hyphenated, key=len, reverse=True)
    whole = re.compile(rf"\s*(?P<word>{'|'.join(map(re.escape, words))}){_BOUNDARY}") if words else None
    position = 0
    while text[position:].strip():
        match = (whole.match(text, position) if whole else None) or _TOKEN.match(text, position)
        if match is None:
            raise ValueError(_unreadable(text, position))
        token, position = _token(text, match)
        yield token


def _token(text: str, match: re.Match[str]) -> tuple[Token, int]:
    """The matched piece, and the start of the next one."""
    found = match.groupdict()
    if found.get("sign") in _REFUSED:
        raise ValueError(
            f"'{match['sign']}' {place(match.start('sign'))} is not allowed here; {_REFUSED[match['sign']]}"
        )
    if found.get("number"):
        return _number(text, match)
    kind: Literal["text", "word", "sign"] = "text" if found.get("text") else "word" if found["word"] else "sign"
    source = repr(match["text"][1:-1]) if kind == "text" else match[kind]
    return Token(kind, source, match.start(kind)), match.end()


def _number(text: str, match: re.Match[str]) -> tuple[Token, int]:
    at, unit, end = match.start("number"), match["unit"], match.end()
    factor: float = 1
    if match["percent"] and _is_remainder(text[match.end() :]):
        end = match.end("number")
    elif match["percent"]:
        return Token("number", repr(_read(match["number"], at) / 100), at), end
    elif unit in CONNECTIVES:
        end = match.end("number")
    elif unit is not None:
        if unit not in UNITS:
            hint = suggestion(unit, UNITS) or f"; units are {', '.join(UNITS)}, %"
            raise ValueError(f"unknown unit '{unit}' {place(match.start('unit'))}{hint}")
        factor = UNITS[unit]
    value = _read(match["number"], at) * factor
    if not value <= _LARGEST:
        raise ValueError(f"the number {place(at)} is too large")
    return Token("number", repr(value), at), end


def _read(digits: str, at: int) -> int | float:
    value = float(digits)
    if not math.isfinite(value) or value > _LARGEST:
        raise ValueError(f"the number {place(at)} is too large")
    return int(digits) if digits.isdecimal() else value


def _is_remainder(rest: str) -> bool:
    """Whether an operand follows the sign %, which then means remainder and not percent."""
    rest = rest.lstrip()
    word = re.match(r"[^\W\d]\w*", rest)
    return word.group() not in CONNECTIVES if word else rest[:1].isdigit() or rest[:1] in ("(", ".")


def _unreadable(text: str, position: int) -> str:
    at = position + len(text[position:]) - len(text[position:].lstrip())
    character = text[at]
    if character in "'\"":
        return f"the text that begins {place(at)} is not closed, or contains a backslash"
    shown = character if character.isprintable() else f"U+{ord(character):04X}"
    hint = _INSTEAD.get(character)
    return f"cannot read '{shown}' {place(at)}{f'; {hint}' if hint else ''}"
