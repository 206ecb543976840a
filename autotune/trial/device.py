"""Which device a trial runs on, and the three things that differ between kinds of device: waiting, memory, seeds."""

from __future__ import annotations

import torch

from autotune.errors import EnvironmentFailure


def resolve_device(name: str) -> torch.device:
    """The device that the spec's `device` means here. `auto` takes an accelerator where there is one.

    Raises EnvironmentFailure when this machine has no such device.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return _with_index(accelerator or torch.device("cpu"))
    device = _with_index(torch.device(name))
    if device.type != "cpu" and not _exists(device):
        found = f"{torch.accelerator.device_count()} found" if torch.accelerator.is_available() else "none found"
        raise EnvironmentFailure(f"device {name}: PyTorch sees no such device here ({found}); use device: auto, or cpu")
    return device


def _with_index(device: torch.device) -> torch.device:
    return torch.device(device.type, 0) if device.type in ("cuda", "xpu") and device.index is None else device


def _exists(device: torch.device) -> bool:
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return here is not None and here.type == device.type and (device.index or 0) < torch.accelerator.device_count()


def make_current(device: torch.device) -> None:
    """Make `device` the current one, for everything that names no device, such as an event or a random state."""
    if device.type in ("cuda", "xpu"):
        getattr(torch, device.type).set_device(device)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all queued work; on the CPU there is nothing to wait for."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
