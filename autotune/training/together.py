"""Processes that train one model together, each on a part of the data, as DistributedDataParallel has them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from autotune.training.window import Weight


class Together:
    """What a step has to do because its model is trained by several processes; nothing where it is trained by one.

    Gradients are averaged once a window, with its last backward pass. All processes must make the same calls.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._no_sync: Any = getattr(model, "no_sync", None)
        """Of DistributedDataParallel, and of what has taken over its name, such as FSDP1."""
        self._device = device
        self._local = False

    @property
    def several(self) -> bool:
        return self._no_sync is not None and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1

    def pass_(self, *, last: bool) -> AbstractContextManager[object]:
        """Around forward and backward of one micro-batch; only the `last` of a window averages the gradients."""
        self._local = not last and self.several
        context: AbstractContextManager[object] = self._no_sync() if self._local else nullcontext()
        return context

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Of a window that ended early: no backward pass knew that it was the last."""
        if not self._local:
            return
        for parameter in parameters:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()
        self._local = False

    def average(self, weight: Weight) -> Weight:
        """Over all processes; itself where there is one."""
        if not self.several:
            return weight
        mean = torch.as_tensor(weight).detach().to(self._device, torch.float64, copy=True)
        dist.all_reduce(mean)
        return mean / dist.get_world_size()
