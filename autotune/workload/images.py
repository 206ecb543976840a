"""Image files as a data set: decoded and augmented as timm's training does, unreadable ones replaced and reported."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from PIL import Image
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torch.utils.data import Dataset

from autotune.errors import WorkloadError
from autotune.spec.workload import Augment
from autotune.workload.image_index import ImageIndex

logger = logging.getLogger(__name__)

Transform = Callable[[Image.Image], Tensor]
MAX_UNREADABLE_IN_A_ROW = 50
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""What PIL raises for files that are truncated, damaged, or no images; a broken PNG is a SyntaxError."""


def training_transform(image_size: int, augment: Augment) -> Transform:
    """From an RGB image to a normalised fp32 tensor (3, `image_size`, `image_size`).

    `timm` uses the generators of torch and `random` for a random crop, flip and colour jitter; `none` is deterministic.
    """
    transform: Transform = create_transform(image_size, is_training=True, no_aug=augment == "none")
    return transform


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """The images of an index as `(tensor, class)`.

    A file that cannot be decoded is replaced by the next one that can, always the same one. Each process writes its
    path once to `unreadable_log`; None: no log is written. `MAX_UNREADABLE_IN_A_ROW` such files in a row raise
    WorkloadError.
    """

    def __init__(self, index: ImageIndex, transform: Transform, unreadable_log: Path | None = None) -> None:
        self._index = index
        self._transform = transform
        self._unreadable_log = unreadable_log
        self._reported: set[Path] = set()

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        attempts = min(MAX_UNREADABLE_IN_A_ROW, len(self))
        cause: Exception | None = None
        for candidate in ((position + offset) % len(self) for offset in range(attempts)):
            path = self._index.path(candidate)
            try:
                image = _decode(path)
            except _UNREADABLE as error:
                cause = error
                self._report(path, error)
            else:
                return self._transform(image), self._index.target(candidate)
        first = self._index.path(position)
        message = (
            f"data: {attempts} images in a row are unreadable in {self._index.root}, the first is {first}: {cause}"
        )
        raise WorkloadError(message) from cause

    def _report(self, path: Path, error: Exception) -> None:
        if path in self._reported:
            return
        self._reported.add(path)
        logger.warning("unreadable image %s: %s", path, error)
        if self._unreadable_log is not None:
            # One short write in append mode: lines of several loader processes do not mix.
            with self._unreadable_log.open("a") as log:
                log.write(f"{path}\n")


def _decode(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """A data source over an index of image files."""

    is_kept: ClassVar[bool] = False
    index: ImageIndex
    image_size: int
    augment: Augment

    @property
    def num_classes(self) -> int:
        return len(self.index.classes)

    def dataset(self, unreadable_log: Path | None = None) -> ImageFiles:
        return ImageFiles(self.index, training_transform(self.image_size, self.augment), unreadable_log)
