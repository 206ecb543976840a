"""PyTorch's global settings that a run may change: saved before the run, and restored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch


class _Switch(NamedTuple):
    read: Callable[[], Any]
    write: Callable[[Any], Any]


class Switches:
    """The settings when this object is created. Runs no operator and touches no accelerator."""

    def __init__(self, device: torch.device) -> None:
        self._kept = [(switch, switch.read()) for switch in _switches({"cpu", device.type})]

    def restore(self) -> None:
        """Write only those that differ: reading one interface after another was written may raise."""
        for switch, value in self._kept:
            if switch.read() != value:
                switch.write(value)


def _switches(devices: set[str]) -> Iterator[_Switch]:
    yield _Switch(torch.get_num_threads, torch.set_num_threads)
    yield _Switch(torch.is_grad_enabled, torch.set_grad_enabled)
    yield _Switch(torch.is_anomaly_enabled, torch.set_anomaly_enabled)
    yield _Switch(torch.get_default_dtype, torch.set_default_dtype)
    yield _Switch(torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms)
    yield _Switch(torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled)
    for device in sorted(devices):
        yield _Switch(partial(torch.is_autocast_enabled, device), partial(torch.set_autocast_enabled, device))
        yield _Switch(partial(torch.get_autocast_dtype, device), partial(torch.set_autocast_dtype, device))
    cudnn: Any = torch.backends.cudnn
    for name in ("enabled", "benchmark", "deterministic"):
        yield _of(cudnn, name)
    yield from _precisions()


def _precisions() -> Iterator[_Switch]:
    """What fp32 may round to. PyTorch has two interfaces; this uses the same one as `autotune.training.precision`."""
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    if hasattr(matmul, "fp32_precision"):
        mkldnn: Any = torch.backends.mkldnn
        for owner in (matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn):
            yield _of(owner, "fp32_precision")
    else:
        yield _of(matmul, "allow_tf32")
        yield _of(cudnn, "allow_tf32")


def _of(owner: Any, name: str) -> _Switch:
    return _Switch(partial(getattr, owner, name), partial(setattr, owner, name))
