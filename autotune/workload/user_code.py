"""Finds the line of the user's own code in which an error occurred: the most useful line of a traceback."""

from __future__ import annotations

import os
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

_OWN = Path(__file__).resolve().parents[1]
_INSTALLED = ("site-packages", "dist-packages")
_STDLIB = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+), in (?P<name>.+)$', re.MULTILINE)
_OF_A_LOADER = "Caught "
"""The message of an error in a loader process begins like this, and contains the traceback from there."""

Frame = tuple[str, int, str]
"""File, line and function."""


def user_line(error: BaseException) -> str | None:
    """`proj.py:41, in loss`: the innermost line of the user's own modules in the traceback of `error`; None if there is
    none. The path is relative to the current folder if it is inside it."""
    link: BaseException | None = error
    while link is not None:
        for file, line, name in reversed([*_frames(link)]):
            if _is_users(file):
                return f"{_shown(file)}:{line}" + (f", in {name}" if name.isidentifier() else "")
        link = link.__cause__
    return None


def said(error: BaseException) -> str:
    """The message of `error`, even if `__str__` of the user's exception raises."""
    try:
        return str(error)
    except BaseException as another:  # noqa: BLE001 - the user's code
        return f"(its message cannot be read: __str__ raised {type(another).__name__})"


def at_user_line(error: BaseException) -> str:
    """The same in brackets, for the end of a message; empty if there is none."""
    line = user_line(error)
    return f" ({line})" if line else ""


def _frames(error: BaseException) -> Iterator[Frame]:
    for frame in traceback.extract_tb(error.__traceback__):
        yield frame.filename, frame.lineno or 0, frame.name
    if isinstance(error, SyntaxError):
        if error.filename:
            yield error.filename, error.lineno or 0, ""
        return
    text = said(error)
    if text.startswith(_OF_A_LOADER):
        for found in _FRAME.finditer(text):
            yield found["file"], int(found["line"]), found["name"]


def _is_users(file: str) -> bool:
    if file.startswith("<"):
        return False
    path = Path(file).resolve()
    if any(part in _INSTALLED for part in path.parts):
        return False
    return not any(path.is_relative_to(folder) for folder in (_OWN, *_STDLIB))


def _shown(file: str) -> str:
    path = Path(file).resolve()
    here = Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)
