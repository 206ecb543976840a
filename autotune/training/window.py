"""The arithmetic of gradient accumulation: how micro-batches of any size add up to one optimizer step.

A window consists of the micro-batches of one optimizer step. With n_i samples and mean loss m_i in the i-th of them,
its loss is Σ n_i·m_i / Σ n_i, and its gradient the gradient of that: what one large batch would give. Σ n_i is unknown
until the window ends, so each micro-batch is divided by the nominal weight, n_1 × (micro-batches per step), and what
was accumulated is corrected once at the end, only where the true weight differs. A loss function that returns
`(summed_loss, count)` takes part with its own count (tokens, boxes, …) in place of n_i.

Processes that train together average their gradients. If losses come with counts, these differ between processes, so
all divide by the average count: the gradient is that of the mean over everything that all processes counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Self

import torch
from torch import Tensor

Weight = float | Tensor
"""Number of samples, or of what else the loss is a mean over. A tensor stays on its device: reading its value would
wait."""
Average = Callable[[Weight], Weight]
"""Averages a weight over all processes that train together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroLoss:
    """The loss of one micro-batch: `value` × `scale` is its sum over `weight` samples."""

    value: Tensor
    scale: float
    weight: Weight
    counted: bool = False
    """Whether the loss function returned its own count."""

    def mean(self) -> Tensor:
        """Detached mean loss, 0-d, in fp32 or better."""
        return _times(_detached(self.value), self.scale / _positive(self.weight))


def read_loss(result: Any, samples: int) -> MicroLoss:
    """The result of a loss function for `samples` samples: a scalar mean loss, or `(summed_loss, count)`.

    Raises TypeError for anything else.
    """
    if isinstance(result, tuple) and len(result) == 2:
        summed, count = result
        if isinstance(count, Tensor) and count.requires_grad:
            raise TypeError(
                "the loss function returned two losses: a pair is read as (summed_loss, count), and this count "
                "requires a gradient. Return their sum, such as `return classes + boxes`; the count is the number of "
                "samples, tokens or boxes in the sum"
            )
        return MicroLoss(value=_scalar(summed), scale=1.0, weight=_weight(count), counted=True)
    weight = float(samples)
    return MicroLoss(value=_scalar(result), scale=weight, weight=weight)


def _scalar(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.dim() > 0:
        raise TypeError(f"the loss function must return a scalar tensor, or (summed_loss, count); it {_found(value)}")
    if not value.requires_grad:
        raise TypeError(
            "the loss requires no gradient: the loss function detaches it (.item(), .detach(), torch.no_grad()), or no "
            "parameter of the model requires one"
        )
    return value


def _found(value: Any) -> str:
    """What the loss function returned instead, and what to do."""
    if value is None:
        return "returned None: a return statement is missing"
    if isinstance(value, Tensor):
        return f"returned a tensor of shape {tuple(value.shape)}; return its mean, or its sum with the number of terms"
    name = type(value).__name__
    if isinstance(value, int | float):
        return f"returned a {name}; return the tensor itself, without .item()"
    if isinstance(value, Mapping) and "loss" in value:
        return f'returned {name}; return the loss in it: output["loss"]'
    if hasattr(value, "loss"):
        return f"returned {name}; return the loss in it: output.loss"
    return f"returned {name}" + ("; add several losses up to one" if isinstance(value, tuple | list | Mapping) else "")


def _weight(count: Any) -> Weight:
    """The number of terms in the sum. On an accelerator its value is not looked at: that would wait for the device."""
    if isinstance(count, Tensor) and count.numel() == 1:
        if count.device.type != "cpu":
            return count.detach()
        count = count.item()
    is_number = isinstance(count, Real) and not isinstance(count, bool)
    number = float(count) if is_number else math.nan
    if not (number == 0 or 1 <= number < math.inf):
        found = f"{number:g}" if is_number else type(count).__name__
        raise TypeError(
            "the loss function returned a pair, which is read as (summed_loss, count), and its count, the number of "
            f"samples, tokens or boxes in the sum, is {found}. Return the loss alone if the second is a metric or "
            "another output"
        )
    return number


def _detached(value: Tensor) -> Tensor:
    # A copy, because the next replay of a CUDA graph overwrites the memory of its loss.
    return value.detach().to(torch.promote_types(value.dtype, torch.float32), copy=True)


def _positive(weight: Weight) -> Weight:
    """`weight`, or 1 if it is 0: a micro-batch with only padding adds nothing, and must not cause a division by
    zero."""
    if isinstance(weight, Tensor):
        return torch.where(weight > 0, weight, 1)
    return weight if weight > 0 else 1.0


def _times(value: Tensor, factor: Weight) -> Tensor:
    """The product, without launching a kernel to multiply by 1."""
    if isinstance(factor, Tensor):
        return value * factor.to(value.dtype)
    return value if factor == 1 else value * factor


@dataclass(kw_only=True)
class Window:
    """The running sums of one optimizer step."""

    nominal_weight: Weight
    """The divisor of each micro-batch."""
    counted: bool
    weight: Weight = 0.0
    loss: Tensor | None = None
    """Sum of the shares."""
    samples: int = 0
    micro_batches: int = 0

    @classmethod
    def opened_by(cls, first: MicroLoss, grad_accum_steps: int, average: Average | None = None) -> Self:
        """A new window, sized by its first micro-batch, which the caller still has to add. `average`: given if
        processes train together."""
        weight = _averaged(_positive(first.weight), average if first.counted else None)
        return cls(nominal_weight=weight * grad_accum_steps, counted=first.counted)

    def add(self, loss: MicroLoss, samples: int) -> Tensor:
        """Add one micro-batch. Returns its share of the window's loss, for the backward pass."""
        share = _times(loss.value, loss.scale / self.nominal_weight)
        self.loss = _detached(share) if self.loss is None else self.loss + share.detach()
        self.weight = self.weight + loss.weight
        self.samples += samples
        self.micro_batches += 1
        return share

    def correction(self, average: Average | None = None) -> Weight | None:
        """Factor for the accumulated gradients; None if the window has the expected weight."""
        weight = _averaged(_positive(self.weight), average if self.counted else None)
        if not isinstance(weight, Tensor) and weight == self.nominal_weight:
            return None
        return self.nominal_weight / weight

    def mean_loss(self, correction: Weight | None) -> Tensor:
        """Detached mean loss over the window so far, 0-d, of this process's part; `correction`: the result of the
        method above.

        Needs at least one micro-batch.
        """
        if self.loss is None:
            raise ValueError("no micro-batch has been added to this window")
        return self.loss if correction is None else _times(self.loss, correction)


def _averaged(weight: Weight, average: Average | None) -> Weight:
    return weight if average is None else average(weight)
