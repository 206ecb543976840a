"""The loss that a spec names, called as `loss(model, batch)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from autotune.criterion import criterion_flaw
from autotune.errors import WorkloadError
from autotune.training import LossFn
from autotune.workload.factory import load_callable


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    """Mean cross-entropy of a batch `(inputs, targets)`; targets are class indices or class probabilities."""
    inputs, targets = _pair(batch)
    return functional.cross_entropy(model(inputs), targets)


def _pair(batch: Any) -> Any:
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch
    found = f"dicts of {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
    raise TypeError(
        f"cross_entropy needs batches of (inputs, targets), but the data set gives {found}; write a loss function and "
        "name it: `training.loss: package.module:function`. It is called as function(model, batch)"
    )


def prepare_loss(name: str) -> LossFn:
    """`cross_entropy`, or the user's function. Raises WorkloadError when there is no such function."""
    if name == "cross_entropy":
        return cross_entropy
    found = load_callable("training.loss", name)
    if (flaw := criterion_flaw(found)) is not None:
        raise WorkloadError(f"training.loss: {name}: {flaw}; the mean cross-entropy is `loss: cross_entropy`")
    return found
