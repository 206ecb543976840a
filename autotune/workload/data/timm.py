"""`data.timm`: any data set that `timm.data.create_dataset` knows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from timm.data.dataset_factory import create_dataset
from torch import Tensor
from torch.utils.data import Dataset

from autotune.errors import WorkloadError
from autotune.spec.workload import DataSpec, TimmDataSpec
from autotune.workload.data import count_classes
from autotune.workload.images import Transform, training_transform
from autotune.workload.problems import blaming


def prepare(data: DataSpec, folder: Path) -> _TimmSource:
    if data.timm is None:
        raise ValueError("the spec has no data.timm")
    return _TimmSource(section=data.timm, folder=folder)


@dataclass(frozen=True)
class _TimmSource:
    """Built late, in the trial's process, because the library may do anything when it opens the data set."""

    is_kept: ClassVar[bool] = True
    section: TimmDataSpec
    folder: Path

    @cached_property
    def _dataset(self) -> Any:
        section = self.section
        root = None if section.root is None else str(self.folder / section.root.expanduser())
        with blaming(f"data.timm: {section.name}"):
            dataset = create_dataset(section.name, root=root, split=section.split, is_training=True, **section.args)
        if not hasattr(dataset, "transform"):
            raise WorkloadError(f"data.timm: {section.name} takes no transform, so its samples differ in size")
        dataset.transform = _AnyMode(training_transform(section.image_size, section.augment))
        return dataset

    @property
    def num_classes(self) -> int | None:
        return count_classes(self._dataset)

    def dataset(self, unreadable_log: Path | None = None) -> Dataset[Any]:
        dataset: Dataset[Any] = self._dataset
        return dataset


class _AnyMode:
    """A transform of RGB images that takes greyscale and palette images too."""

    def __init__(self, transform: Transform) -> None:
        self._transform = transform

    def __call__(self, image: Image.Image) -> Tensor:
        return self._transform(image.convert("RGB"))
