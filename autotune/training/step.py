"""One training step as a `TrainConfig` describes it. Trials and training with their result run the same code."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from autotune.config import TrainConfig
from autotune.criterion import criterion_flaw
from autotune.training.batch import batch_size, move_batch, sample_shapes
from autotune.training.errors import MeanOfMeans, SettingHasNoEffect
from autotune.training.observer import StepObserver, Unobserved
from autotune.training.precision import autocast_context, make_grad_scaler, require_autocast
from autotune.training.together import Together
from autotune.training.window import Window, read_loss

LossFn = Callable[[nn.Module, Any], Tensor | tuple[Tensor, Any]]
"""Called as `loss_fn(model, batch)`; returns a scalar mean loss, or `(summed_loss, count)`."""
Shapes = tuple[tuple[int, ...], ...]
MEAN_OF_MEANS = (
    "the micro-batches of an accumulation window differ in shape, and the loss function returns the mean over each: "
    "training then uses a mean of means, in which the tokens of a short one weigh more. Return (summed_loss, count) "
    "instead, such as `cross_entropy(logits, targets, reduction='sum', ignore_index=pad), (targets != pad).sum()`"
)
_MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOutput:
    """What one call of a `TrainStep` did."""

    loss: Tensor
    """Detached 0-d tensor on the device: mean over the window if this call closed it, else over this micro-batch."""
    samples: int
    """Number of samples over which `loss` is the mean."""
    window_closed: bool
    """Whether an optimizer step was due; also true if the GradScaler skipped it."""
    optimizer_stepped: bool
    """False while gradients accumulate, and if the GradScaler skipped the update."""


class TrainStep:
    """Forward and backward pass, and the optimizer's step once a window of `grad_accum_steps` micro-batches is full.

    `model` must already be on `device` (`apply_to_model`). Batches are moved here, without blocking if they are pinned.
    No call waits for the device, unless fp16 has to read the loss scale. If several processes train the model
    (`distribute`), gradients are averaged once per window, and all processes must make the same calls.

    Raises SettingHasNoEffect if autocast or the GradScaler would switch itself off, or if `config.fused_optimizer` is
    set and the optimizer was built without `fused=True`. Raises TypeError for a criterion in place of a loss function.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss_fn: LossFn,
        config: TrainConfig,
        *,
        device: torch.device,
        clip_grad_norm: float | None = None,
        observer: StepObserver | None = None,
    ) -> None:
        if (flaw := criterion_flaw(loss_fn)) is not None:
            raise TypeError(f"loss_fn: {flaw}")
        require_autocast(config.amp_dtype, device)
        _require_fused(optimizer, config)
        self._model = model
        self._optimizer = optimizer
        self._loss_fn = loss_fn
        self._config = config
        self._device = device
        self._clip_grad_norm = clip_grad_norm
        self._scaler = make_grad_scaler(config.amp_dtype, device)
        self._observer = observer or Unobserved()
        self._together = Together(model, device)
        self._window: Window | None = None
        self._shapes: Shapes = ()
        self.unequal: tuple[Shapes, Shapes] | None = None
        """Shapes of the samples in two micro-batches of one window, where they differ and the loss is the mean over
        each: the mean over the window is then a mean of means. Warned of once."""
        self.loss_scale: float | None = None
        """The GradScaler's scale after the last optimizer step; None without a scaler, and before the first step."""

    def __call__(self, batch: Any) -> StepOutput:
        """Train on one micro-batch."""
        samples = batch_size(batch)
        batch = move_batch(
            batch,
            self._device,
            non_blocking=self._config.pin_memory,
            memory_format=_MEMORY_FORMATS[self._config.memory_format],
        )
        self._observer.mark("copy")
        if self._window is None:
            # Not right after the optimizer's step: the activations are freed then too, the C library would return the
            # memory to the system, and every page would fault again (5 % of a ResNet-18's step on two cores).
            self._optimizer.zero_grad(set_to_none=True)
        before = 0 if self._window is None else self._window.micro_batches
        with self._together.pass_(last=before + 1 == self._config.grad_accum_steps):
            with self._autocast():
                loss = read_loss(self._loss_fn(self._model, batch), samples)
            self._compare_shapes(batch, counted=loss.counted)
            if self._window is None:
                self._window = Window.opened_by(loss, self._config.grad_accum_steps, self._together.average)
            share = self._window.add(loss, samples)
            (share if self._scaler is None else self._scaler.scale(share)).backward()  # type: ignore[no-untyped-call]
        self._observer.mark("forward_backward")
        if self._window.micro_batches < self._config.grad_accum_steps:
            return StepOutput(loss=loss.mean(), samples=samples, window_closed=False, optimizer_stepped=False)
        return self._close(self._window)

    def _compare_shapes(self, batch: Any, *, counted: bool) -> None:
        if counted or self._config.grad_accum_steps == 1 or self.unequal is not None:
            return
        shapes = sample_shapes(batch)
        if self._window is None:
            self._shapes = shapes
        elif shapes != self._shapes:
            self.unequal = self._shapes, shapes
            warnings.warn(MEAN_OF_MEANS, MeanOfMeans, stacklevel=3)

    def _autocast(self) -> AbstractContextManager[object]:
        """No autocast for FSDP2, which casts by itself."""
        return autocast_context("none" if self._together.shards else self._config.amp_dtype, self._device)

    def finish(self) -> StepOutput | None:
        """Step on an incomplete window at the end of the epoch, with the mean over its micro-batches. None if no window
        is open."""
        return None if self._window is None else self._close(self._window)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs in addition to the states of model and optimizer: the loss scale, and the sums and
        gradients of an unfinished window. Contains only what `torch.load` accepts by default: tensors, numbers and
        containers of these."""
        gradients = None if self._window is None else [_copy(parameter.grad) for parameter in self._parameters()]
        return {
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
            "window": None if self._window is None else dict(vars(self._window)),
            "gradients": gradients,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was called. Load the model and the optimizer first.

        Raises ValueError for a state with another precision or another number of parameters.
        """
        gradients, parameters = state["gradients"], self._parameters()
        if (state["scaler"] is None) != (self._scaler is None):
            raise ValueError(f"the checkpoint was written with another amp_dtype than {self._config.amp_dtype}")
        if gradients is not None and len(gradients) != len(parameters):
            raise ValueError(
                f"the checkpoint holds {len(gradients)} gradients, the optimizer {len(parameters)} parameters"
            )
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])
            self.loss_scale = self._scaler.get_scale()
        self._window = None if state["window"] is None else Window(**_on(self._device, state["window"]))
        for parameter, gradient in zip(parameters, gradients or (), strict=False):
            parameter.grad = None if gradient is None else gradient.to(parameter.device, copy=True)

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    def _close(self, window: Window) -> StepOutput:
        parameters = [parameter for parameter in self._parameters() if parameter.grad is not None]
        self._together.average_gradients(parameters)
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        correction = window.correction(self._together.average)
        if correction is not None:
            torch._foreach_mul_([_own(p.grad) for p in parameters], correction)
        self._observer.look_at_gradients(parameters)
        if self._clip_grad_norm is not None:
            clip_grad_norm_(parameters, self._clip_grad_norm)
        stepped = self._update()
        self._window = None
        self._observer.mark("optimizer")
        return StepOutput(
            loss=window.mean_loss(correction), samples=window.samples, window_closed=True, optimizer_stepped=stepped
        )

    def _update(self) -> bool:
        """Step the optimizer; False if the GradScaler skipped the step, which lowers its scale."""
        if self._scaler is None:
            self._optimizer.step()
            return True
        before = self._scaler.get_scale()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.loss_scale = self._scaler.get_scale()
        return self.loss_scale >= before


def _own(gradient: Any) -> Any:
    """The local part of `gradient`, if it is sharded over several processes."""
    return gradient.to_local() if hasattr(gradient, "to_local") else gradient


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()


def _on(device: torch.device, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in values.items()}


def _require_fused(optimizer: Optimizer, config: TrainConfig) -> None:
    if config.fused_optimizer and not all(group.get("fused") for group in optimizer.param_groups):
        raise SettingHasNoEffect("fused_optimizer", True, f"build {type(optimizer).__name__} with fused=True")
