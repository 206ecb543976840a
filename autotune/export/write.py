"""Where exports land."""

from __future__ import annotations

from pathlib import Path

from autotune.export.target import Export, Source
from autotune.store import speaking_of, write_atomically

_EXPORTS = "exports"


def write(made: Export, source: Source, out: Path | None) -> list[Path]:
    """Write the files of `made` into `out`, silent: into `exports/` of the study's folder, or into the current folder
    for a result without one. Returns their paths. Raises EnvironmentFailure where they cannot be written."""
    path = source.emitted.path
    usual = path.parent / _EXPORTS if path is not None and source.spec is not None else Path()
    folder = usual if out is None else out
    written = []
    with speaking_of(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in made.files.items():
            write_atomically(folder / name, text)
            written.append(folder / name)
    return written
