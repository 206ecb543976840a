"""Data sources: one module for each field of the spec's `data` section, of the same name.

Each has `prepare(data, folder) -> DataSource`, which runs in a process that will be forked. It may import, list folders
and compute with NumPy. It must not run a torch operator, touch an accelerator or leave a thread behind. It raises
WorkloadError for what the user has to fix.
"""

from __future__ import annotations

import importlib
from collections.abc import Sized
from pathlib import Path
from typing import Any, Protocol

from torch.utils.data import Dataset

from autotune.spec.workload import DataSpec

_NO_SOURCES = ("args", "collate")


class DataSource(Protocol):
    """A data set that has been found and can be built, in the trial's own process, any number of times."""

    @property
    def is_kept(self) -> bool:
        """Whether `dataset` builds the data set only once, which may take long, and then returns the same one again."""

    @property
    def num_classes(self) -> int | None:
        """Number of classes; None if unknown. May have to build the data set."""

    def dataset(self, unreadable_log: Path | None = None) -> Dataset[Any]:
        """The data set, map-style or iterable. A source that can skip unreadable samples appends their paths to
        `unreadable_log`, one per line."""


def prepare_data(data: DataSpec, folder: Path) -> DataSource:
    """The source that `data` names. `folder`: the spec's folder, which relative paths start from."""
    given = next(name for name in DataSpec.model_fields if name not in _NO_SOURCES and getattr(data, name) is not None)
    source: DataSource = importlib.import_module(f"{__name__}.{given}").prepare(data, folder)
    return source


def count_classes(dataset: Any) -> int | None:
    """Number of classes according to the data set itself, read from any of the usual attributes."""
    count = getattr(dataset, "num_classes", None)
    if isinstance(count, int):
        return count
    reader = getattr(dataset, "reader", None)
    for names in (getattr(dataset, "classes", None), getattr(reader, "class_to_idx", None)):
        if isinstance(names, Sized) and len(names) > 0:
            return len(names)
    return None
