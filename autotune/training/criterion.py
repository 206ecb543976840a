"""A loss function made of a criterion, for batches of inputs and targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from autotune.training.step import LossFn

Criterion = Callable[[Any, Any], Tensor]
"""Called as `criterion(model(inputs), targets)`; returns the mean over the batch."""


def loss_of(criterion: Criterion, device: torch.device) -> LossFn:
    """A loss function for batches `(inputs, targets)` that calls `criterion`. The criterion's own tensors, such as
    class weights, are moved to `device`. Raises ValueError for a criterion that does not take the mean. The loss
    function raises TypeError for batches of another form."""
    reduction = getattr(criterion, "reduction", "mean")
    if reduction not in ("mean", "batchmean"):
        raise ValueError(
            f"criterion: reduction={reduction!r}; give one with reduction='mean', or loss_fn(model, batch), which may "
            "return (summed_loss, count)"
        )
    if isinstance(criterion, nn.Module):
        criterion.to(device)

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            found = (
                f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, tuple | list) else type(batch).__name__
            )
            raise TypeError(
                f"criterion takes batches (inputs, targets), not a {found}; give loss_fn(model, batch) instead"
            )
        inputs, targets = batch
        return criterion(model(inputs), targets)

    return loss_fn
