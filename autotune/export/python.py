"""Pieces of Python source that several targets share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.export.notes import header, notes
from autotune.export.target import Source, Target


def docstring(title: str, source: Source, target: Target) -> str:
    """Of a module: what it is, where it comes from, what its user has to do."""
    paragraphs = [title, "\n".join(header(source)), "\n".join(f"- {note}" for note in notes(source, target))]
    body = "\n\n".join(filter(None, paragraphs)).replace("\\", "\\\\").replace('"""', "'''")
    return f'"""{body}\n"""\n'


def keywords(values: Mapping[str, Any], indent: int = 4) -> str:
    """`name=value,` lines."""
    return "".join(f"{' ' * indent}{name}={value!r},\n" for name, value in values.items())


def loader_arguments(source: Source) -> dict[str, Any]:
    """Of a DataLoader."""
    config = source.config
    arguments: dict[str, Any] = {"batch_size": config.micro_batch_size, "num_workers": config.num_workers}
    arguments["pin_memory"] = config.pin_memory
    if config.num_workers:
        arguments["persistent_workers"] = True
        if config.prefetch_factor is not None:
            arguments["prefetch_factor"] = config.prefetch_factor
    return arguments


LOADER_KNOBS = frozenset({"micro_batch_size", "num_workers", "pin_memory", "prefetch_factor"})
