"""Pieces of text that several targets share: introductions, Python calls, arguments of a DataLoader."""

from __future__ import annotations

import keyword
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from autotune.export.notes import notes, promise
from autotune.export.quoting import literal
from autotune.export.target import Source, Target

WIDTH = 120
"""Width of generated text, in columns."""
LOADER_KNOBS = frozenset({"micro_batch_size", "num_workers", "pin_memory", "prefetch_factor"})
"""What `loader_arguments` sets."""


def introduction(source: Source, target: Target, *more: str) -> list[str]:
    """The text at the top of a file: the promise, `more` as a separate paragraph, the notes; lines of WIDTH - 2."""
    lines = [line for sentence in promise(source) for line in _wrapped(sentence)]
    for sentence in more:
        lines += ["", *_wrapped(sentence)]
    found = notes(source, target)
    return [*lines, *([""] if found else []), *(line for note in found for line in _wrapped(note, bullet="- "))]


def _wrapped(sentence: str, bullet: str = "") -> list[str]:
    indent = " " * len(bullet)
    return textwrap.wrap(sentence, WIDTH - 2, initial_indent=bullet, subsequent_indent=indent, break_on_hyphens=False)


class Expression(str):
    """Python source that is used as an argument without quoting."""


def arguments(values: Mapping[str, Any]) -> list[str]:
    """One `name=value` each; names that Python does not allow go into a mapping."""
    names = {name: value for name, value in values.items() if name.isidentifier() and not keyword.iskeyword(name)}
    rest = {name: value for name, value in values.items() if name not in names}
    written = [f"{name}={value if isinstance(value, Expression) else literal(value)}" for name, value in names.items()]
    return [*written, *([f"**{literal(rest)}"] if rest else [])]


def call(head: str, given: Iterable[str], indent: int = 0) -> str:
    """`head(given, …)` on one line, or one line per argument if that is too long; `indent`: spaces before it."""
    given = list(given)
    line = f"{' ' * indent}{head}({', '.join(given)})"
    if len(line) <= WIDTH:
        return line
    inner = "".join(f"{' ' * (indent + 4)}{each},\n" for each in given)
    return f"{' ' * indent}{head}(\n{inner}{' ' * indent})"


def mapping(name: str, values: Mapping[str, Any]) -> str:
    """`name = dict(…)`, one line per entry."""
    inner = "".join(f"    {each},\n" for each in arguments(values))
    return f"{name} = dict(\n{inner})\n"


def loader_arguments(source: Source) -> dict[str, Any]:
    """Arguments of a DataLoader as in the trials: no shorter last batch, persistent workers."""
    config = source.config
    given: dict[str, Any] = {
        "batch_size": config.micro_batch_size,
        "shuffle": True,
        "drop_last": True,
        "num_workers": config.num_workers,
        "pin_memory": config.pin_memory,
    }
    if config.num_workers:
        given["persistent_workers"] = True
        if config.prefetch_factor is not None:
            given["prefetch_factor"] = config.prefetch_factor
    return given
