"""Processes that train one model together, each on a part of the data. Each process has a copy of the model
(DistributedDataParallel) or a share of its parameters (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from autotune.config import TrainConfig
from autotune.training.errors import SettingHasNoEffect
from autotune.training.precision import DTYPES
from autotune.training.window import Weight


def world_size() -> int:
    """Number of processes that train together; 1 if this process trains alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Rank of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def distribute(model: nn.Module, config: TrainConfig, device: torch.device) -> nn.Module:
    """Prepare `model`, which is already on `device`, for training by all processes of the default group. With one
    process, returns `model` itself.

    Every process calls this, after `torch.distributed.init_process_group`. With `ddp` the result wraps `model`. With
    `fsdp` it is `model` itself with sharded parameters: build the optimizer afterwards.

    Raises SettingHasNoEffect for settings of several processes if there is only one, and for a static graph with
    accumulation.
    """
    if world_size() == 1:
        if config.data_parallel is not None:
            raise SettingHasNoEffect("data_parallel", config.data_parallel, "one process trains alone")
        return model
    if config.data_parallel == "fsdp":
        return _shard(model, config, device)
    if config.static_graph and config.grad_accum_steps > 1:
        raise SettingHasNoEffect("static_graph", True, "DDP fails with it if a backward pass exchanges no gradients")
    return nn.parallel.DistributedDataParallel(
        model,
        device_ids=None if device.type == "cpu" else [device],
        bucket_cap_mb=config.bucket_cap_mb,
        gradient_as_bucket_view=bool(config.gradient_as_bucket_view),
        static_graph=bool(config.static_graph),
    )


def _shard(model: nn.Module, config: TrainConfig, device: torch.device) -> nn.Module:
    """Shard each block separately, so that only one of them is gathered at a time, then the rest of the model.

    AMP is FSDP's mixed precision: parameters and activations in `amp_dtype`, gradients reduced in fp32.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    dtype = DTYPES.get(config.amp_dtype)
    mesh = init_device_mesh(device.type, (world_size(),))

    def policy(output: torch.dtype | None = None) -> MixedPrecisionPolicy:
        return MixedPrecisionPolicy(dtype, torch.float32 if dtype else None, output if dtype else None)

    for block in _blocks(model):
        fully_shard(block, mesh=mesh, mp_policy=policy())
    fully_shard(model, mesh=mesh, mp_policy=policy(torch.float32))  # fp32 for the loss, as under autocast
    return model


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The repeated parts of `model`: members of a list or sequence of modules that have parts of their own."""
    for container in model.modules():
        if isinstance(container, nn.ModuleList | nn.Sequential):
            yield from (
                part
                for part in container.children()
                if any(True for _ in part.children())
                and not isinstance(part, nn.ModuleList | nn.Sequential)
                and any(True for _ in part.parameters())
            )


class Together:
    """The parts of a step that exist because several processes train the model; they do nothing if one process trains
    it.

    Gradients are averaged once per window, in its last backward pass. All processes must make the same calls.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._no_sync: Any = getattr(model, "no_sync", None)
        """From DistributedDataParallel, or another class with this method, such as FSDP1."""
        self._switch: Any = getattr(model, "set_requires_gradient_sync", None)
        """From FSDP2."""
        self._device = device
        self._local = False

    @property
    def several(self) -> bool:
        return (self._no_sync is not None or self.shards) and world_size() > 1

    @property
    def shards(self) -> bool:
        """Whether each process holds a share of the parameters, in the precision of FSDP's own policy."""
        return self._switch is not None

    def pass_(self, *, last: bool) -> AbstractContextManager[object]:
        """Context for forward and backward of one micro-batch; only the `last` one of a window averages the
        gradients."""
        self._local = not last and self.several
        if not self._local:
            return nullcontext()
        context: AbstractContextManager[object] = self._switched_off() if self.shards else self._no_sync()
        return context

    @contextmanager
    def _switched_off(self) -> Iterator[None]:
        self._switch(False)
        try:
            yield
        finally:
            self._switch(True)

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average the gradients of a window that ended early, because no backward pass was known to be the last. Raises
        RuntimeError for FSDP2, whose unreduced gradients are not accessible."""
        if not self._local:
            return
        if self.shards:
            raise RuntimeError("FSDP2 cannot end an accumulation window early; let the data end with a full one")
        for parameter in parameters:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()
        self._local = False

    def average(self, weight: Weight) -> Weight:
        """The average over all processes; `weight` itself if there is one."""
        if not self.several:
            return weight
        mean = torch.as_tensor(weight).detach().to(self._device, torch.float64, copy=True)
        dist.all_reduce(mean)
        return mean / dist.get_world_size()
