"""Writes exports to files."""

from __future__ import annotations

import stat
from pathlib import Path

from autotune.errors import SpecError
from autotune.export.source import study_around
from autotune.export.target import Export, Source
from autotune.store import speaking_of, write_atomically

_EXPORTS = "exports"
_EXECUTABLE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


def write(made: Export, source: Source, out: Path | None = None) -> list[Path]:
    """Write the files of `made` into the folder `out`. Default: `exports/` in the study's folder, or the current folder
    for a result outside of a study. Returns their paths.

    A file with other content is replaced only in a study's own `exports/`. Raises SpecError if such a file is in the
    way elsewhere, EnvironmentFailure if files cannot be written.
    """
    study = study_around(source.emitted)
    own = study.path / _EXPORTS if study is not None else None
    folder = out or own or Path()
    if own is not None and folder == own and own.is_symlink():
        raise SpecError(f"{own} is a link to another folder; remove the link, or give another folder with --out")
    with speaking_of(folder):
        if folder != own:
            _refuse_to_replace(folder, made)
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(folder / name, text) for name, text in made.files.items()]


def _write(path: Path, text: str) -> Path:
    write_atomically(path, text)
    if text.startswith("#!"):
        path.chmod(path.stat().st_mode | _EXECUTABLE)
    return path


def _refuse_to_replace(folder: Path, made: Export) -> None:
    if folder.exists() and not folder.is_dir():
        raise SpecError(f"--out: {folder} is a file; give a folder")
    for name, text in made.files.items():
        path = folder / name
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
            raise SpecError(f"{path} exists already with other content; give another folder with --out")
