"""A workload in two phases: prepared once in a process that is forked for each trial, built in the trial itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from autotune.config import KnobValue
from autotune.errors import WorkloadError
from autotune.spec import Spec, with_arguments
from autotune.training import LossFn, collate_of
from autotune.workload.data import DataSource, prepare_data
from autotune.workload.factory import load_callable, make_importable
from autotune.workload.loss import prepare_loss
from autotune.workload.model import BuildModel, prepare_model
from autotune.workload.optimizer import BuildOptimizer, prepare_optimizer
from autotune.workload.problems import with_settings

Collate = Callable[[list[Any]], Any]
_Part = TypeVar("_Part")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A workload whose modules are imported and whose data set is indexed. Call its methods in the trial's process.

    What they build depends on the global random generators of torch, `random` and NumPy, which the caller seeds. All
    raise WorkloadError for what the user has to fix; out-of-memory errors pass unchanged.
    """

    spec: Spec
    folder: Path
    build_optimizer: BuildOptimizer
    data: DataSource
    build_model: BuildModel
    loss: LossFn
    collate: Collate | None = None
    """The spec's collate function; None: the data set, or else PyTorch, makes the batches."""
    custom: Mapping[str, KnobValue] = field(default_factory=dict)
    """Values of the spec's own knobs that are in effect."""

    def with_custom(self, custom: Mapping[str, KnobValue]) -> Prepared:
        """The same workload with these values of `search.custom` as arguments; everything else is shared.

        Call it only in the process that builds the workload: preparing again may do what must not happen before a fork.
        """
        if not custom:
            return self
        unknown = [name for name in custom if name not in self.spec.search.custom]
        if unknown:
            raise WorkloadError(f"search.custom: the spec has no knob {unknown[0]}")
        prepared = replace(self, spec=with_arguments(self.spec, custom), custom=custom)
        if prepared._knobs_of("model"):
            with prepared._naming("model"):
                prepared = replace(prepared, build_model=prepare_model(prepared.spec.model))
        if prepared._knobs_of("data"):
            with prepared._naming("data"):
                prepared = replace(prepared, data=prepare_data(prepared.spec.data, self.folder))
        if prepared._knobs_of("training"):
            with prepared._naming("training"):
                prepared = replace(prepared, build_optimizer=prepare_optimizer(prepared.spec.training.optimizer))
        return prepared

    @property
    def keeps_data(self) -> bool:
        """Whether the data set, once built in this process, serves all trials that are forked from it. If a custom knob
        changes the data set, each trial needs its own."""
        return self.data.is_kept and not any(knob.path[0] == "data" for knob in self.spec.search.custom.values())

    def dataset(self, unreadable_log: Path | None = None) -> Dataset[Any]:
        """The training data. Paths of images that cannot be decoded are appended to `unreadable_log`, a line each."""
        with self._naming("data"):
            return self.data.dataset(unreadable_log)

    def model(self) -> nn.Module:
        """A new model on the CPU. May build the data set, to learn how many classes it has."""
        with self._naming("data"):
            classes = self.data.num_classes
        with self._naming("model"):
            model = self.build_model(classes)
        if self.spec.model.sync_batch_norm:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return model

    def loss_fn(self) -> LossFn:
        return self.loss

    def collate_fn(self, dataset: Any) -> Collate:
        """The function that makes batches of the samples of `dataset`."""
        return self.collate or collate_of(dataset)

    def optimizer(self, model: nn.Module, *, fused: bool = False) -> Optimizer:
        """A new optimizer of the parameters of `model`, which may be inside DistributedDataParallel. `fused=False`
        leaves the implementation to PyTorch."""
        inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        with self._naming("training"):
            return self.build_optimizer(inner, fused=fused)

    def _naming(self, section: str) -> AbstractContextManager[None]:
        return with_settings(self._knobs_of(section))

    def _knobs_of(self, section: str) -> dict[str, KnobValue]:
        """The custom knobs whose arguments are in `section`, with their values."""
        knobs = self.spec.search.custom
        return {name: value for name, value in self.custom.items() if knobs[name].path[0] == section}


def prepare(spec: Spec, folder: Path) -> Prepared:
    """Import and index what `spec` names; `folder` is the spec's own. Cheap checks come first. Problems with optimizer,
    loss, collate function and model are reported together.

    Runs no torch operator, touches no accelerator and leaves no thread behind: none of these survives a fork. Raises
    WorkloadError, and EnvironmentFailure when generated data cannot be written.
    """
    make_importable(folder)
    collate = spec.data.collate
    problems: list[str] = []

    def done(prepare_part: Callable[[], _Part]) -> _Part | None:
        try:
            return prepare_part()
        except WorkloadError as error:
            problems.extend(error.problems)
            return None

    build_optimizer = done(lambda: prepare_optimizer(spec.training.optimizer))
    loss = done(lambda: prepare_loss(spec.training.loss))
    collate_fn = done(lambda: load_callable("data.collate", collate)) if collate else None
    build_model = done(lambda: prepare_model(spec.model))
    if problems or build_optimizer is None or loss is None or build_model is None:
        raise WorkloadError(problems)
    return Prepared(
        spec=spec,
        folder=folder,
        build_optimizer=build_optimizer,
        data=prepare_data(spec.data, folder),
        build_model=build_model,
        loss=loss,
        collate=collate_fn,
    )
