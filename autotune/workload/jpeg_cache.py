"""Synthetic images as real JPEG files, written once into a cache folder, so that decoding has its real cost."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from autotune.errors import EnvironmentFailure, WorkloadError
from autotune.host import usable_cores
from autotune.scratch import scratch_folder
from autotune.workload.forks import for_each
from autotune.workload.image_index import ImageIndex
from autotune.workload.patterns import GENERATOR_VERSION, Patterns

_QUALITY = 90
_PARTIAL = ".partial-"
_WORTH_A_PROCESS = 100
"""So many files of 256 pixels are written in 80 ms; forking a process that has loaded PyTorch takes 10 to 20 ms."""


def cache_root() -> Path:
    """The folder of this user's caches, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autotune"


def cached_jpegs(*, samples: int, classes: int, size: int, seed: int) -> ImageIndex:
    """The index of `samples` JPEG files of `size` × `size` pixels, written now unless an earlier call has.

    A folder under its final name is complete: files are written elsewhere first and renamed together. So processes may
    race, and may be killed at any time.

    Raises EnvironmentFailure if they cannot be written, WorkloadError if some of them were deleted later.
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
    with scratch_folder(folder.parent, _PARTIAL) as partial:

        def write(position: int) -> None:
            Image.fromarray(patterns.image(position)).save(partial / names[position], quality=_QUALITY)

        for parent in {(partial / name).parent for name in names}:
            parent.mkdir()
        for_each(range(len(names)), write, processes=min(usable_cores(), len(names) // _WORTH_A_PROCESS))
        try:
            partial.rename(folder)
        except OSError:
            # Another process was first; it wrote the same files.
            if not folder.exists():
                raise
