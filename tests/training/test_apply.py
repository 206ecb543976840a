"""Settings of the process and the model: in effect, or refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from autotune.config import TrainConfig
from autotune.training import (
    SettingHasNoEffect,
    TrainStep,
    activation_checkpointing_refusal,
    apply_to_model,
    apply_to_process,
    fused_optimizer_refusal,
)

CPU = torch.device("cpu")


class Checkpointable(nn.Linear):
    """As timm's models: the method is there, and the model keeps the state."""

    checkpointing = False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.checkpointing = enable


class Refusing(nn.Linear):
    """As timm's models that cannot."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        if enable:
            raise AssertionError("gradient checkpointing not supported")


class Transformer(nn.Linear):
    """As transformers' models."""

    checkpointing = False

    def gradient_checkpointing_enable(self) -> None:
        self.checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        self.checkpointing = False


class FusedElsewhere(torch.optim.SGD):
    """As torch's own on a device that has no fused kernels."""

    def __init__(self, params: Any, lr: float, fused: bool = False) -> None:
        if fused:
            raise RuntimeError("`fused=True` requires another device")
        super().__init__(params, lr)


def test_threads_are_set_and_a_silent_configuration_changes_nothing() -> None:
    before = torch.get_num_threads()
    try:
        apply_to_process(TrainConfig(), CPU)
        assert torch.get_num_threads() == before
        apply_to_process(TrainConfig(num_threads=1), CPU)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_precision_off_cuda_is_refused() -> None:
    with pytest.raises(SettingHasNoEffect, match="fp32_precision"):
        apply_to_process(TrainConfig(fp32_precision="tf32"), CPU)


def test_channels_last_lays_out_four_dimensions_and_keeps_the_parameters() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv3d(1, 2, 3), nn.Linear(2, 2))
    before = list(model.parameters())
    assert apply_to_model(model, TrainConfig(memory_format="channels_last"), CPU) is model
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[operator]
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("model_class", [Checkpointable, Transformer])
def test_activation_checkpointing_is_switched_on(model_class: Any) -> None:
    model = model_class(2, 2)
    assert activation_checkpointing_refusal(model) is None
    assert not model.checkpointing
    apply_to_model(model, TrainConfig(activation_checkpointing=True), CPU)
    assert model.checkpointing


@pytest.mark.parametrize(
    ("model", "reason"),
    [(nn.Linear(2, 2), "Linear has no method for it"), (Refusing(2, 2), "gradient checkpointing not supported")],
)
def test_activation_checkpointing_is_refused_where_it_has_no_effect(model: nn.Module, reason: str) -> None:
    assert activation_checkpointing_refusal(model) == reason
    with pytest.raises(SettingHasNoEffect, match=reason):
        apply_to_model(model, TrainConfig(activation_checkpointing=True), CPU)


def test_fused_is_refused_where_the_optimizer_or_the_device_has_none() -> None:
    assert fused_optimizer_refusal(torch.optim.SGD, CPU) is None
    assert fused_optimizer_refusal(torch.optim.AdamW, CPU) is None
    assert fused_optimizer_refusal(torch.optim.RMSprop, CPU) == "RMSprop has no fused implementation"
    assert fused_optimizer_refusal(FusedElsewhere, CPU) == (
        "FusedElsewhere has no fused implementation on cpu: `fused=True` requires another device"
    )


@pytest.mark.parametrize("mode", ["default", "max-autotune"])
def test_compile_is_in_place_and_keeps_the_names(mode: Any) -> None:
    model = nn.Linear(2, 2)
    assert apply_to_model(model, TrainConfig(compile=mode), CPU) is model
    assert model._compiled_call_impl is not None
    assert set(model.state_dict()) == {"weight", "bias"}


def test_compile_without_effect_is_refused() -> None:
    import torch._dynamo

    with pytest.raises(SettingHasNoEffect, match="CUDA graphs"):
        apply_to_model(nn.Linear(2, 2), TrainConfig(compile="reduce-overhead"), CPU)
    disabled = torch._dynamo.config.patch(disable=True)
    with disabled, pytest.raises(SettingHasNoEffect, match="TORCHDYNAMO_DISABLE is set"):
        apply_to_model(nn.Linear(2, 2), TrainConfig(compile="default"), CPU)


@pytest.mark.slow
def test_compiled_training_under_autocast_follows_the_eager_one() -> None:
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    losses: list[list[float]] = []
    for model, mode in zip(models, ("none", "default"), strict=True):
        config = TrainConfig(compile=mode, amp_dtype="bf16", memory_format="channels_last")  # type: ignore[arg-type]
        apply_to_model(model, config, CPU)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        step = TrainStep(model, optimizer, lambda m, b: functional.cross_entropy(m(b[0]), b[1]), config, device=CPU)
        batch = (torch.ones(4, 3, 8, 8), torch.arange(4) % 3)
        losses.append([step(batch).loss.item() for _ in range(4)])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_the_package_needs_torch_and_nothing_else() -> None:
    code = (
        "import sys, autotune.training; "
        "found = {'timm', 'torchvision', 'pydantic', 'optuna', 'click', 'rich', 'yaml'} & set(sys.modules); "
        "sys.exit(f'imported {found}' if found else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
