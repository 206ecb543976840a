"""Number formats of a training step: autocast, loss scaling, and what fp32 arithmetic may round to."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from autotune.config import AmpDtype, Fp32Precision
from autotune.training.errors import SettingHasNoEffect

DTYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast_context(amp_dtype: AmpDtype, device: torch.device) -> AbstractContextManager[object]:
    """Autocast for one forward pass and its loss; does nothing for `none`."""
    return nullcontext() if amp_dtype == "none" else torch.autocast(device.type, dtype=DTYPES[amp_dtype])


def require_autocast(amp_dtype: AmpDtype, device: torch.device) -> None:
    """Raise SettingHasNoEffect where autocast would warn and switch itself off."""
    if amp_dtype == "none":
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with autocast_context(amp_dtype, device):
            enabled = torch.is_autocast_enabled(device.type)
    if not enabled:
        raise SettingHasNoEffect("amp_dtype", amp_dtype, f"autocast switches itself off on {device.type} here")


def make_grad_scaler(amp_dtype: AmpDtype, device: torch.device) -> torch.amp.GradScaler | None:
    """The loss scaler that fp16 needs to keep small gradients from vanishing; None for the other formats.

    Raises SettingHasNoEffect where the scaler would warn and switch itself off.
    """
    if amp_dtype != "fp16":
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scaler = torch.amp.GradScaler(device.type)
    if not scaler.is_enabled():
        raise SettingHasNoEffect("amp_dtype", amp_dtype, f"GradScaler switches itself off on {device.type} here")
    return scaler


def set_fp32_precision(precision: Fp32Precision | None, device: torch.device) -> None:
    """Allow fp32 matrix products and convolutions to round to `precision`, for the whole process.

    None leaves PyTorch's own choice alone: tf32 for cuDNN's convolutions, ieee for matrix products. Raises
    SettingHasNoEffect on devices other than CUDA, and for tf32 on a GPU without it.
    """
    if precision is None:
        return
    if device.type != "cuda":
        raise SettingHasNoEffect("fp32_precision", precision, "CUDA only")
    if precision == "tf32" and not _has_tf32(device):
        raise SettingHasNoEffect("fp32_precision", precision, "needs compute capability 8.0")
    _write_fp32_precision(precision)


def _has_tf32(device: torch.device) -> bool:
    if torch.version.hip:
        return "gfx94" in torch.cuda.get_device_properties(device).gcnArchName
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _write_fp32_precision(precision: Fp32Precision) -> None:
    # After the API of PyTorch 2.9 was written, reading the older one raises, so only one of them is used. It sets each
    # operator's value, not the common one, because cuDNN's convolutions have their own value from the start.
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    if hasattr(matmul, "fp32_precision"):
        for owner in (matmul, cudnn.conv, cudnn.rnn):
            owner.fp32_precision = precision
    else:
        matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
