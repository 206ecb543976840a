"""Data sources: one module for each field of the spec's `data` section, of the same name.

Each has `prepare(data, folder) -> DataSource`, which runs in a process that will be forked: it may import, list folders
and compute with NumPy, but run no torch operator, touch no accelerator and leave no thread behind. It raises
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
        """Whether `dataset` builds it the first time, which may take long, and then gives the same one again."""

    @property
    def num_classes(self) -> int | None:
        """Classes to tell apart; None when that is unknown. May have to build the data set."""

    def dataset(self, unreadable_log: Path | None = None) -> Dataset[Any]:
        """The data set, map-style or iterable. Where a source can pass over unreadable samples, it appends the path of
        each to `unreadable_log`, a line each."""


def prepare_data(data: DataSpec, folder: Path) -> DataSource:
    """The source that `data` names. `folder`: the spec's own, where relative paths begin."""
    given = next(name for name in DataSpec.model_fields if name not in _NO_SOURCES and getattr(data, name) is not None)
    source: DataSource = importlib.import_module(f"{__name__}.{given}").prepare(data, folder)
    return source


def count_classes(dataset: Any) -> int | None:
    """How many classes a data set says that it has, in any of the ways common for one to say so."""
    count = getattr(dataset, "num_classes", None)
    if isinstance(count, int):
        return count
    reader = getattr(dataset, "reader", None)
    for names in (getattr(dataset, "classes", None), getattr(reader, "class_to_idx", None)):
        if isinstance(names, Sized) and len(names) > 0:
            return len(names)
    return None
