"""Finds the images in a folder by listing it: opens no file and runs no torch operator."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from autotune.errors import WorkloadError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
_MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class ImageIndex:
    """The images under `root`, each with its class.

    Names and targets are arrays, not lists, so that loader processes share their memory. Each process would write to
    the reference counts of a million Python strings, and so copy them.
    """

    root: Path
    classes: tuple[str, ...]
    names: NDArray[np.bytes_]
    """Paths below `root`, encoded by `os.fsencode`."""
    targets: NDArray[np.int64]
    """Positions in `classes`."""

    @classmethod
    def of(cls, root: Path, classes: Sequence[str], samples: Sequence[tuple[str, int]]) -> Self:
        return cls(
            root=root,
            classes=tuple(classes),
            names=np.array([os.fsencode(name) for name, _ in samples]),
            targets=np.array([target for _, target in samples], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.names)

    def path(self, position: int) -> Path:
        return self.root / os.fsdecode(self.names[position])

    def target(self, position: int) -> int:
        return int(self.targets[position])


def scan_image_folder(root: Path, where: str) -> ImageIndex:
    """The images in the class folders of `root`, at any depth, in sorted order, without hidden files.

    Raises WorkloadError, beginning with `where`, if `root` cannot be read, has no class folder, or has an empty one.
    """
    try:
        classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not _hidden(entry.name))
        files = [sorted(_images(root / name)) for name in classes]
    except OSError as error:
        raise WorkloadError(f"{where}: cannot read {error.filename}: {error.strerror}") from error
    if not classes:
        raise WorkloadError(
            f"{where}: no class folders in {root}; put the images of each class into a folder of its own"
        )
    empty = [name for name, found in zip(classes, files, strict=True) if not found]
    if len(empty) == len(classes):
        raise WorkloadError(f"{where}: no images in any of the {len(classes)} class folders of {root}")
    if empty:
        raise WorkloadError([f"{where}: no images in class folder {root / name}" for name in empty[:_MOST_NAMED]])
    samples = [(os.path.relpath(file, root), target) for target, found in enumerate(files) for file in found]
    return ImageIndex.of(root, classes, samples)


def _images(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not _hidden(name)]
        for name in files:
            if name.lower().endswith(IMAGE_SUFFIXES) and not _hidden(name):
                yield f"{place}/{name}"


def _hidden(name: str) -> bool:
    return name.startswith(".")
