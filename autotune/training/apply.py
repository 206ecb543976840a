"""Applies the settings of a `TrainConfig` that concern the process or the model, not the single step."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from autotune.config import CompileMode, TrainConfig
from autotune.training.errors import SettingHasNoEffect
from autotune.training.precision import set_fp32_precision

_CONVOLUTION_DIMENSIONS = 4


def apply_to_process(config: TrainConfig, device: torch.device) -> None:
    """Threads and fp32 precision, for the whole process. Call it before the first operator runs.

    Raises SettingHasNoEffect for a precision that `device` does not have.
    """
    set_fp32_precision(config.fp32_precision, device)
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)


def apply_to_model(model: nn.Module, config: TrainConfig, device: torch.device) -> nn.Module:
    """Move `model` to `device`, set its memory format, compile it and switch on activation checkpointing, as `config`
    says.

    Works in place and returns `model`: its parameters stay the same objects, and the keys of its state_dict the same
    names. Raises SettingHasNoEffect for a setting that the model or the device does not support.
    """
    if config.activation_checkpointing:
        _set_activation_checkpointing(model, True)
    model.to(device)
    if config.memory_format == "channels_last":
        _to_channels_last(model)
    if config.compile != "none":
        _compile(model, config.compile, device)
    return model


def _to_channels_last(model: nn.Module) -> None:
    # Not `model.to(memory_format=...)`, which fails on the five dimensions of a 3-D convolution.
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dim() == _CONVOLUTION_DIMENSIONS:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)


def _compile(model: nn.Module, mode: CompileMode, device: torch.device) -> None:
    import torch._dynamo  # takes a second or two, needed only for compiled training

    if torch._dynamo.config.disable:
        raise SettingHasNoEffect("compile", mode, "TORCH_COMPILE_DISABLE or TORCHDYNAMO_DISABLE is set")
    if mode == "reduce-overhead" and device.type == "cpu":
        raise SettingHasNoEffect("compile", mode, "all it adds to default is CUDA graphs")
    _keep_autocast_out_of_backward()
    model.compile(mode=None if mode == "default" else mode)


def _keep_autocast_out_of_backward() -> None:
    """Compile the backward pass as it will run, outside autocast; by default it is compiled under the autocast of the
    forward pass."""
    import torch._functorch.config as functorch_config

    if hasattr(functorch_config, "backward_pass_autocast"):
        functorch_config.backward_pass_autocast = "off"


def activation_checkpointing_refusal(model: nn.Module) -> str | None:
    """Why `model` cannot checkpoint its activations; None when it can. Leaves checkpointing switched off."""
    try:
        _set_activation_checkpointing(model, True)
    except SettingHasNoEffect as error:
        return error.reason
    _set_activation_checkpointing(model, False)
    return None


def _set_activation_checkpointing(model: nn.Module, enable: bool) -> None:
    """Use the method of timm or transformers. Models that do not support checkpointing have the method too, but it
    raises."""
    switch: Any = getattr(model, "set_grad_checkpointing", None)
    arguments = {"enable": enable}
    if switch is None:
        switch = getattr(model, f"gradient_checkpointing_{'enable' if enable else 'disable'}", None)
        arguments = {}
    if switch is None:
        raise SettingHasNoEffect("activation_checkpointing", enable, f"{type(model).__name__} has no method for it")
    try:
        switch(**arguments)
    except (AssertionError, NotImplementedError, ValueError) as error:
        reason = str(error) or f"{type(model).__name__} does not support it"
        raise SettingHasNoEffect("activation_checkpointing", enable, reason) from error


def fused_optimizer_refusal(optimizer_class: type[Optimizer], device: torch.device) -> str | None:
    """Why `optimizer_class` cannot run its fused implementation on `device`; None when it can.

    Tests it with one step on a single number, so it runs an operator on `device`.
    """
    name = optimizer_class.__name__
    if "fused" not in inspect.signature(optimizer_class).parameters:
        return f"{name} has no fused implementation"
    parameter = nn.Parameter(torch.zeros(1, device=device))
    parameter.grad = torch.zeros_like(parameter)
    build: Any = optimizer_class
    try:
        build([parameter], lr=1e-3, fused=True).step()
    except (RuntimeError, TypeError, ValueError) as error:
        return f"{name} has no fused implementation on {device.type}: {error}"
    return None
