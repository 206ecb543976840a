"""`data.factory`: the user's own function that returns a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from torch.utils.data import DataLoader, Dataset

from autotune.errors import WorkloadError
from autotune.spec.workload import DataSpec
from autotune.workload.data import count_classes
from autotune.workload.factory import load_callable
from autotune.workload.problems import blaming

_WHERE = "data.factory"


def prepare(data: DataSpec, folder: Path) -> _FactorySource:
    if data.factory is None:
        raise ValueError("the spec has no data.factory")
    return _FactorySource(name=data.factory, call=load_callable(_WHERE, data.factory), args=data.args)


@dataclass(frozen=True)
class _FactorySource:
    is_kept: ClassVar[bool] = True
    name: str
    call: Callable[..., Any]
    args: dict[str, Any]

    @cached_property
    def _dataset(self) -> Any:
        with blaming(f"{_WHERE}: {self.name}"):
            dataset = self.call(**self.args)
        if isinstance(dataset, DataLoader):
            raise WorkloadError(
                f"{_WHERE}: {self.name} returned a DataLoader; return the data set, loading is searched"
            )
        if not isinstance(dataset, Dataset) and not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
            raise WorkloadError(f"{_WHERE}: {self.name} returned a {type(dataset).__name__}, not a Dataset")
        return dataset

    @property
    def num_classes(self) -> int | None:
        return count_classes(self._dataset)

    def dataset(self, unreadable_log: Path | None = None) -> Dataset[Any]:
        dataset: Dataset[Any] = self._dataset
        return dataset
