"""The loss that a spec names, called as `loss(model, batch)`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from autotune.criterion import criterion_flaw
from autotune.errors import WorkloadError
from autotune.training import LossFn
from autotune.workload.factory import load_callable


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    """Mean cross-entropy of a batch `(inputs, targets)`; targets are class indices or class probabilities."""
    inputs, targets = batch
    return functional.cross_entropy(model(inputs), targets)


def prepare_loss(name: str) -> LossFn:
    """`cross_entropy`, or the user's function. Raises WorkloadError when there is no such function."""
    if name == "cross_entropy":
        return cross_entropy
    found = load_callable("training.loss", name)
    if (flaw := criterion_flaw(found)) is not None:
        raise WorkloadError(f"training.loss: {name}: {flaw}; the mean cross-entropy is `loss: cross_entropy`")
    return found
