"""`data.image_folder`: image files, one folder per class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autotune.spec.workload import DataSpec
from autotune.workload.image_index import scan_image_folder

if TYPE_CHECKING:
    from autotune.workload.images import ImageSource


def prepare(data: DataSpec, folder: Path) -> ImageSource:
    section = data.image_folder
    if section is None:
        raise ValueError("the spec has no data.image_folder")
    index = scan_image_folder(folder / section.path.expanduser(), "data.image_folder")
    from autotune.workload.images import ImageSource  # takes two seconds; a mistake in the path is reported before

    return ImageSource(index=index, image_size=section.image_size, augment=section.augment)
