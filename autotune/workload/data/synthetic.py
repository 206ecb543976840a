"""`data.synthetic`: generated classes that a network can learn, from memory or from JPEG files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from autotune.spec.workload import DataSpec
from autotune.workload.data import DataSource
from autotune.workload.jpeg_cache import cached_jpegs
from autotune.workload.patterns import Patterns

_SOURCE_SCALE = 256 / 224
"""JPEG files are larger than the network's input, like 256 and 224 pixels for ImageNet, so that there is something to
crop."""
_MEAN, _STD = 128.0, 64.0


def prepare(data: DataSpec, folder: Path) -> DataSource:
    section = data.synthetic
    if section is None:
        raise ValueError("the spec has no data.synthetic")
    if section.storage == "jpeg":
        from autotune.workload.images import ImageSource  # timm's transforms take a second to import

        size = section.file_size or round(section.image_size * _SOURCE_SCALE)
        index = cached_jpegs(samples=section.samples, classes=section.classes, size=size, seed=section.seed)
        return ImageSource(index=index, image_size=section.image_size, augment=section.augment)
    patterns = Patterns.generate(
        samples=section.samples, classes=section.classes, size=section.image_size, seed=section.seed
    )
    return _MemorySource(patterns=patterns, num_classes=section.classes)


class PatternImages(Dataset[tuple[Tensor, int]]):
    """Generated images as `(tensor, class)`: fp32 (3, size, size), with about zero mean and unit variance."""

    def __init__(self, patterns: Patterns) -> None:
        self._patterns = patterns

    def __len__(self) -> int:
        return len(self._patterns)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        # NumPy, because torch would split this small job over all threads, which then wait for each other.
        pixels = self._patterns.image(position).transpose(2, 0, 1).astype(np.float32, order="C")
        pixels -= _MEAN
        pixels /= _STD
        return torch.from_numpy(pixels), self._patterns.label(position)


@dataclass(frozen=True, kw_only=True)
class _MemorySource:
    is_kept: ClassVar[bool] = False
    patterns: Patterns
    num_classes: int

    def dataset(self, unreadable_log: Path | None = None) -> PatternImages:
        return PatternImages(self.patterns)
