"""A workload in two phases: prepared once in a process that is forked for each trial, built in the trial itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from autotune.spec import Spec
from autotune.training import LossFn
from autotune.workload.data import DataSource, prepare_data
from autotune.workload.factory import make_importable
from autotune.workload.loss import prepare_loss
from autotune.workload.model import BuildModel, prepare_model
from autotune.workload.optimizer import build_optimizer, find_optimizer


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A workload whose modules are imported and whose data set is indexed. Its methods belong into the trial's process.

    What they build depends on the global random generators of torch, `random` and NumPy, which the caller seeds.
    All raise WorkloadError for what the user has to mend; running out of memory passes as it is.
    """

    spec: Spec
    optimizer_class: type[Optimizer]
    data: DataSource
    build_model: BuildModel
    loss: LossFn

    def dataset(self, unreadable_log: Path | None = None) -> Dataset[Any]:
        """The training data. Paths of images that cannot be decoded are appended to `unreadable_log`, a line each."""
        return self.data.dataset(unreadable_log)

    def model(self) -> nn.Module:
        """A new model on the CPU. May build the data set, to learn how many classes it has."""
        return self.build_model(self.data.num_classes)

    def loss_fn(self) -> LossFn:
        return self.loss

    def optimizer(self, parameters: Iterable[nn.Parameter], *, fused: bool = False) -> Optimizer:
        """A new optimizer over `parameters`. `fused=False` leaves the implementation to PyTorch."""
        return build_optimizer(self.spec.training.optimizer, parameters, fused=fused)


def prepare(spec: Spec, folder: Path) -> Prepared:
    """Import and index what `spec` names; `folder` is the spec's own. What is cheap to check comes first.

    Runs no torch operator, touches no accelerator, leaves no thread behind: a fork carries none of these over. Raises
    WorkloadError, and EnvironmentFailure when generated data cannot be written.
    """
    make_importable(folder)
    optimizer_class = find_optimizer(spec.training.optimizer)
    loss = prepare_loss(spec.training.loss)
    build_model = prepare_model(spec.model)
    return Prepared(
        spec=spec,
        optimizer_class=optimizer_class,
        data=prepare_data(spec.data, folder),
        build_model=build_model,
        loss=loss,
    )
