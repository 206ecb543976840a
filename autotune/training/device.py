"""The name of a device."""

from __future__ import annotations

import torch

from autotune.host import cpu_name


def device_name(device: torch.device) -> str:
    """The model name of the accelerator or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "xpu":
        return str(torch.xpu.get_device_name(device))
    return "Apple GPU" if device.type == "mps" else cpu_name()
