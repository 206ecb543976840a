"""Synthetic images as real JPEG files, written once into a cache folder, so that decoding costs what it costs."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from autotune.errors import EnvironmentFailure, WorkloadError
from autotune.workload.image_index import ImageIndex
from autotune.workload.patterns import GENERATOR_VERSION, Patterns

_QUALITY = 90


def cache_root() -> Path:
    """Where this user's caches lie, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autotune"


def cached_jpegs(*, samples: int, classes: int, size: int, seed: int) -> ImageIndex:
    """The index of `samples` JPEG files of `size` × `size` pixels, written now unless an earlier call has.

    A folder under its final name is complete: files are written elsewhere first and renamed together, so that processes
    may race and die as they like.

    Raises EnvironmentFailure when they cannot be written, WorkloadError when some have been deleted since.
    """
    folder = cache_root() / "synthetic" / f"{samples}-of-{classes}-at-{size}-seed-{seed}-v{GENERATOR_VERSION}"
    patterns = Patterns.generate(samples=samples, classes=classes, size=size, seed=seed)
    names = [f"{patterns.label(position):04d}/{position:07d}.jpg" for position in range(samples)]
    try:
        if not folder.exists():
            _write_together(folder, patterns, names)
        present = sum(len(files) for _, _, files in os.walk(folder))
    except OSError as error:
        reason = error.strerror or error
        raise EnvironmentFailure(
            f"cannot write the synthetic data to {folder}: {reason}; set XDG_CACHE_HOME"
        ) from error
    if present < samples:
        raise WorkloadError(f"data.synthetic: {samples - present} of {samples} files are gone from {folder}; delete it")
    labelled = [(name, patterns.label(position)) for position, name in enumerate(names)]
    return ImageIndex.of(folder, [f"{label:04d}" for label in range(classes)], labelled)


def _write_together(folder: Path, patterns: Patterns, names: list[str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        for position, name in enumerate(names):
            path = partial / name
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(patterns.image(position)).save(path, quality=_QUALITY)
        try:
            partial.rename(folder)
        except OSError:
            # Another process was first, and what it has written is the same.
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
