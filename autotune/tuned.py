"""`autotune.load`: uses the result of a study in a training script.

    tuned = autotune.load("studies/quickstart")
    optimizer = tuned.optimizer(torch.optim.SGD, model.parameters(), lr=0.02)
    step = tuned.train_step(model, optimizer, loss_fn)
    for batch in tuned.dataloader(dataset):
        out = step(batch)

The study's own trials ran the same code. PyTorch is imported by the first method that needs it.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from autotune.config import KnobValue, TrainConfig
from autotune.criterion import criterion_flaw
from autotune.emitted import Emitted, read_emitted, settings_of
from autotune.wording import python_errors

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim import Optimizer
    from torch.utils.data import DataLoader, Dataset

    from autotune.training import Criterion, LossFn, TrainStep

_Optimizer = TypeVar("_Optimizer", bound="Optimizer")


class MeasuredElsewhere(UserWarning):
    """The settings were measured on another device or another PyTorch. They may be neither fast nor stable here."""


class ChangedBatchSize(UserWarning):
    """The effective batch size differs from the baseline's. The learning rate may have to change too."""


def load(path_or_study: str | Path, *, device: str | torch.device | None = None) -> TunedConfig:
    """Load the result of a study from its `best.yaml`, its folder, or its name under `studies/`.

    `device`: the device to train on, such as `cuda:1`. Default: the kind of device that was measured, if there is one.
    Warns MeasuredElsewhere if PyTorch or the device differs from what was measured, and ChangedBatchSize if the
    effective batch size is not the baseline's. Raises SpecError if there is no result, or none that this version can
    read.
    """
    with python_errors():
        tuned = TunedConfig(read_emitted(path_or_study), device=device)
    tuned.warn_of_another_torch()
    if tuned.emitted.batch_change:
        warnings.warn(f"study {tuned.emitted.study}: {tuned.emitted.batch_change}", ChangedBatchSize, stacklevel=2)
    return tuned


class TunedConfig:
    """A configuration and its measurements."""

    def __init__(self, emitted: Emitted, *, device: str | torch.device | None = None) -> None:
        self.emitted = emitted
        """All that the study says about it."""
        self._asked_device = device
        self._applied: WeakSet[nn.Module] = WeakSet()

    @property
    def config(self) -> TrainConfig:
        """Every setting with its value: `tuned.config.num_workers`."""
        return self.emitted.config

    @property
    def custom(self) -> Mapping[str, KnobValue]:
        """Values of the spec's own knobs, for your factories."""
        return dict(self.config.custom)

    @property
    def micro_batch_size(self) -> int:
        """Samples per forward and backward pass, on one device."""
        return self.config.micro_batch_size

    @property
    def grad_accum_steps(self) -> int:
        """Micro-batches per optimizer step."""
        return self.config.grad_accum_steps

    @property
    def effective_batch_size(self) -> int:
        """Samples per optimizer step, over all devices of the measurement."""
        return self.config.effective_batch_size

    @property
    def samples_per_s(self) -> float:
        """The throughput that the study confirmed."""
        return self.emitted.best.samples_per_s

    @property
    def speedup(self) -> float:
        """Throughput, divided by the baseline's."""
        return self.emitted.speedup

    @property
    def verdict(self) -> str:
        """`stable`: no instability was seen in the steps that were run; `unconfirmed`: the budget ended before that."""
        return self.emitted.verdict

    @cached_property
    def device(self) -> torch.device:
        """The device to train on. Warns MeasuredElsewhere if it is not like the measured one."""
        import torch

        found = torch.device(self._asked_device or self._usual_device())
        if found.type == "cuda" and found.index is None:
            found = torch.device("cuda", torch.cuda.current_device())
        self._warn_of_another_device(found)
        return found

    def apply(self, model: nn.Module) -> nn.Module:
        """Set threads and fp32 precision of the process; then move, lay out and compile `model`, in place.

        Call it before the first operator runs. The parameters stay the same objects. Raises SettingHasNoEffect if the
        model or this device cannot do what the configuration says.
        """
        from autotune.training import apply_to_model, apply_to_process

        apply_to_process(self.config, self.device)
        self._applied.add(model)
        return apply_to_model(model, self.config, self.device)

    def distribute(self, model: nn.Module) -> nn.Module:
        """Prepare `model` for training by all processes of torch's default group, as it was measured.

        Wraps it in DistributedDataParallel, or shards it with FSDP2: then build the optimizer afterwards. With one
        process, returns the model itself. Calls `apply` if that has not been called.
        """
        from autotune.training import distribute, world_size

        if model not in self._applied:
            self.apply(model)
        return distribute(model, self.config, self.device) if world_size() > 1 else model

    def optimizer(self, make: Callable[..., _Optimizer], parameters: Any, **arguments: Any) -> _Optimizer:
        """Call `make(parameters, **arguments)`, with `fused=True` if that was measured."""
        return make(parameters, **({"fused": True} if self.config.fused_optimizer else {}), **arguments)

    def dataloader(
        self,
        dataset: Dataset[Any],
        *,
        shuffle: bool = True,
        drop_last: bool = True,
        seed: int | None = None,
        **overrides: Any,
    ) -> DataLoader[Any]:
        """A DataLoader that gives micro-batches of `dataset`, loaded as measured. `overrides` are arguments of the
        DataLoader and take precedence.

        `drop_last` leaves out a shorter last batch, which would make torch.compile compile again and BatchNorm see few
        samples. `seed` fixes the order of the samples. Raises SettingHasNoEffect for pinned memory without an
        accelerator, and ValueError if the data set is smaller than one batch.
        """
        from autotune.training import build_dataloader

        return build_dataloader(
            dataset, self.config, device=self.device, shuffle=shuffle, drop_last=drop_last, seed=seed, **overrides
        )

    def train_step(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss_fn: LossFn | None = None,
        *,
        criterion: Criterion | None = None,
        clip_grad_norm: float | None = None,
    ) -> TrainStep:
        """A callable that trains on one micro-batch: autocast, loss scaling, accumulation, clipping, the update.

        Give one of two. `loss_fn(model, batch)` returns a scalar mean loss, or `(summed_loss, count)` if micro-batches
        have different weights. `criterion`, such as `nn.CrossEntropyLoss()`, is for batches `(inputs, targets)`.

        Calls `apply` if that has not been called; the model may be inside DistributedDataParallel. Raises TypeError if
        both or neither are given, or one in place of the other. Raises SettingHasNoEffect if fp16 or autocast would
        switch itself off here, or if a fused optimizer was measured and this one is not.
        """
        from autotune.training import TrainStep, loss_of

        if (flaw := criterion_flaw(loss_fn, "give it as criterion=")) is not None:
            raise TypeError(f"loss_fn: {flaw}")
        if criterion is not None and loss_fn is None:
            loss_fn = loss_of(criterion, self.device)
        elif loss_fn is None or criterion is not None:
            raise TypeError(
                "train_step takes either loss_fn(model, batch) or criterion=, called with outputs and targets"
            )
        inner = getattr(model, "module", model)
        if inner not in self._applied:
            self.apply(inner)
        return TrainStep(model, optimizer, loss_fn, self.config, device=self.device, clip_grad_norm=clip_grad_norm)

    def autocast(self) -> AbstractContextManager[object]:
        """The autocast context for forward passes outside the step, such as validation."""
        from autotune.training import autocast_context

        return autocast_context(self.config.amp_dtype, self.device)

    def warn_of_another_torch(self) -> None:
        """Warn MeasuredElsewhere if the installed PyTorch differs from the measured one."""
        measured, here = str(self.emitted.environment.get("torch", "")), importlib.metadata.version("torch")
        if measured and _release(measured) != _release(here):
            self._warn(f"PyTorch {measured}, and this is {here}")

    def _warn_of_another_device(self, device: torch.device) -> None:
        from autotune.training import device_name

        here = device_name(device)
        measured = str(self.emitted.environment.get("device", here))
        if here != measured:
            self._warn(f"{measured}, and this is {here}")

    def _warn(self, what: str) -> None:
        message = f"study {self.emitted.study} was measured on {what}: other settings may be faster here, and these "
        warnings.warn(message + "may not be stable; search again on this machine", MeasuredElsewhere, stacklevel=4)

    def _usual_device(self) -> str:
        import torch

        kind = str(self.emitted.environment.get("device_kind", "cpu"))
        if kind == "cpu":
            return kind
        return kind if getattr(torch, kind).is_available() else "cpu"

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in settings_of(self.config).items())
        change = f" {self.emitted.batch_change}" if self.emitted.batch_change else ""
        return f"TunedConfig({self.emitted.study!r}: {self.emitted.worth}; {settings}){change}"

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        return self.emitted.as_html()


def _release(version: str) -> str:
    """The version without the build, such as `+cu132`, which the installed package may not contain."""
    return version.partition("+")[0]
