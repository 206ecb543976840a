"""From a study's result to the files of other tools, one module per target.

A new module `to_….py` with a `TARGET` is found automatically, under its name.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable

from autotune.export.notes import notes, promise
from autotune.export.quoting import one_line
from autotune.export.source import read_source
from autotune.export.target import Export, Source, Target

__all__ = ["TARGETS", "Export", "Source", "Target", "export", "read_source"]


def _discover() -> dict[str, Target]:
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    return {module.TARGET.name: module.TARGET for module in modules if hasattr(module, "TARGET")}


TARGETS: dict[str, Target] = _discover()


def export(source: Source, to: str) -> Export:
    """`source` in the form of the target named `to`. Raises SpecError if the target needs more than is known."""
    target = TARGETS[to]
    return Export(
        target=to, files=target.render(source), about=_lines(promise(source)), notes=_lines(notes(source, target))
    )


def _lines(sentences: Iterable[str]) -> tuple[str, ...]:
    """Each sentence as one line that is safe to show in a terminal."""
    return tuple(map(one_line, sentences))
