"""Reads the spec file, and checks that the data folders that it names exist."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autotune.errors import SpecError
from autotune.spec.document import DocPath, Document, DocumentError, Flaw, Position, parse_document

_MAX_BYTES = 1_000_000
"""No spec is longer; a data file that is given by mistake may be."""
_GENERATED = "or train on generated images: --set data='{synthetic: {image_size: 224, storage: jpeg}}'"


def read_spec(path: Path) -> Document:
    """The document in the file at `path`. Raises SpecError if there is none."""
    try:
        with path.expanduser().open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file; `autotune init {path}` writes a spec to start from") from None
    except IsADirectoryError:
        raise SpecError(f"{path}: this is a folder; give the YAML file in it") from None
    except (OSError, ValueError, RuntimeError) as error:
        raise SpecError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > _MAX_BYTES:
        raise SpecError(f"{path}: over {_MAX_BYTES // 1_000_000} MB long; this is not a spec")
    try:
        document = parse_document(_decode(raw))
    except DocumentError as error:
        raise SpecError(f"{path}:{error.position.line}:{error.position.column}: {error.message}") from None
    if document.values is None:
        raise SpecError(f"{path}:1:1: the file is empty; `autotune init` writes a spec to start from")
    return document


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig")
        position = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        message = f"the byte 0x{raw[error.start]:02X} is not UTF-8; save the file as UTF-8 text"
        raise DocumentError(position, message) from None


def data_folder_flaws(values: Mapping[str, Any], folder: Path) -> Iterator[Flaw]:
    """A flaw for each data folder in `values` that does not exist. `timm` may download into a new folder."""
    image_folder = _inside(values, ("data", "image_folder", "path"))
    if message := _missing_folder(image_folder, folder):
        yield Flaw(("data", "image_folder", "path"), f"{message}; correct the path, {_GENERATED}")
    root = _inside(values, ("data", "timm", "root"))
    if (message := _missing_folder(root, folder)) and not _inside(values, ("data", "timm", "args", "download")):
        yield Flaw(("data", "timm", "root"), f"{message}; create it, or add args: {{download: true}}")


def _inside(values: Any, path: DocPath) -> Any:
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _missing_folder(written: object, folder: Path) -> str | None:
    """Why `written` is not a folder to read from; None if it is one, or if it cannot be a path."""
    if not isinstance(written, str) or not written:
        return None
    try:
        path = folder / Path(written).expanduser()
        if not path.exists():
            return f"no such folder: {path}"
        if not path.is_dir():
            return f"this is not a folder: {path}"
        return None if os.access(path, os.R_OK | os.X_OK) else f"not allowed to read this folder: {path}"
    except (OSError, ValueError) as error:
        return f"cannot look into this folder: {getattr(error, 'strerror', None) or error}"
    except RuntimeError:
        return None  # The validation of the field reports a home folder that does not exist.
