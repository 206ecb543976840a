"""Number formats: what is switched on, and what is refused because it would switch itself off."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from autotune.training import SettingHasNoEffect, autocast_context, make_grad_scaler, require_autocast
from autotune.training.precision import set_fp32_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


def test_autocast_is_nothing_for_none_and_the_dtype_otherwise() -> None:
    assert isinstance(autocast_context("none", CPU), nullcontext)
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        with autocast_context(name, CPU):  # type: ignore[arg-type]
            assert torch.is_autocast_enabled("cpu")
            assert torch.get_autocast_dtype("cpu") == dtype


def test_only_fp16_has_a_scaler() -> None:
    assert make_grad_scaler("none", CPU) is None
    assert make_grad_scaler("bf16", CPU) is None
    scaler = make_grad_scaler("fp16", CPU)
    assert scaler is not None
    assert scaler.is_enabled()


@without_cuda
@pytest.mark.filterwarnings("error")
def test_what_would_switch_itself_off_is_refused() -> None:
    require_autocast("none", CUDA)
    require_autocast("bf16", CPU)
    with pytest.raises(SettingHasNoEffect, match="amp_dtype: bf16 has no effect: autocast switches itself off"):
        require_autocast("bf16", CUDA)
    with pytest.raises(SettingHasNoEffect, match="GradScaler switches itself off"):
        make_grad_scaler("fp16", CUDA)


def test_fp32_precision_is_left_alone_for_none_and_refused_off_cuda() -> None:
    set_fp32_precision(None, CPU)
    with pytest.raises(SettingHasNoEffect, match="CUDA only"):
        set_fp32_precision("tf32", CPU)


@pytest.mark.parametrize("capability", [(7, 5), (8, 0)])
def test_tf32_needs_compute_capability_8(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    written: list[str] = []
    monkeypatch.setattr("autotune.training.precision._write_fp32_precision", written.append)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    if capability < (8, 0):
        with pytest.raises(SettingHasNoEffect, match=r"compute capability 8\.0"):
            set_fp32_precision("tf32", CUDA)
    else:
        set_fp32_precision("tf32", CUDA)
    set_fp32_precision("ieee", CUDA)
    assert written[-1] == "ieee"


@pytest.mark.parametrize("precision", ["ieee", "tf32"])
def test_exactly_one_of_the_two_apis_is_written(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    def parts(**values: str) -> SimpleNamespace:
        return SimpleNamespace(**values)

    new = {"fp32_precision": "none"}
    matmul, cudnn = parts(**new), SimpleNamespace(conv=parts(**new), rnn=parts(**new))
    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul)
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    set_fp32_precision_unchecked(monkeypatch, precision)
    assert [part.fp32_precision for part in (matmul, cudnn.conv, cudnn.rnn)] == [precision] * 3
    assert not hasattr(matmul, "allow_tf32")

    old_matmul, old_cudnn = SimpleNamespace(allow_tf32=None), SimpleNamespace(allow_tf32=None)
    monkeypatch.setattr(torch.backends.cuda, "matmul", old_matmul)
    monkeypatch.setattr(torch.backends, "cudnn", old_cudnn)
    set_fp32_precision_unchecked(monkeypatch, precision)
    assert old_matmul.allow_tf32 is old_cudnn.allow_tf32 is (precision == "tf32")
    assert not hasattr(old_matmul, "fp32_precision")


def set_fp32_precision_unchecked(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    set_fp32_precision(precision, CUDA)  # type: ignore[arg-type]
