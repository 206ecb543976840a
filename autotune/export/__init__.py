"""From a result to the files of other tools, one target a file. A new `to_….py` with a `TARGET` is found by itself."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from autotune.emitted import read_emitted
from autotune.export.notes import header, notes
from autotune.export.target import Export, Source, Target
from autotune.search.ledger import read_origin
from autotune.spec import parse_spec
from autotune.store import StudyFolder, read_resolved_spec

__all__ = ["TARGETS", "Export", "Source", "Target", "export", "read_source"]


def _discover() -> dict[str, Target]:
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    return {module.TARGET.name: module.TARGET for module in modules if hasattr(module, "TARGET")}


TARGETS: dict[str, Target] = _discover()


def export(source: Source, to: str) -> Export:
    """Render `source` for the target named `to`. Raises SpecError where the target needs more than is known."""
    target = TARGETS[to]
    about, left = tuple(header(source)), tuple(notes(source, target))
    return Export(target=to, files=target.render(source), about=about, notes=left)


def read_source(path_or_study: str | Path) -> Source:
    """The result of a study, by its folder, its name or its `best.yaml`. Raises SpecError, EnvironmentFailure."""
    emitted = read_emitted(path_or_study)
    folder = StudyFolder(emitted.path.parent) if emitted.path else None
    if folder is None or not folder.exists():
        return Source(emitted=emitted)
    origin = read_origin(folder)
    records = folder.read_trials()
    return Source(
        emitted=emitted,
        spec=parse_spec(read_resolved_spec(folder), origin),
        folder=origin,
        data_folder=records[-1].environment.workload.data_folder if records else None,
    )
