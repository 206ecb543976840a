"""The same on CUDA: every knob that needs a device has an effect, memory is counted on it, its walls are survived."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from autotune.config import TrainConfig
from autotune.execution import LocalBackend
from autotune.records import Facts, TrialRequest, TrialResult, TrialStatus
from autotune.search.build_space import build_space
from autotune.spec import parse_spec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here"),
]

_ROOT = Path(__file__).parents[2]
_SPEC: dict[str, Any] = {
    "model": {"timm": "resnet18"},
    "data": {"synthetic": {"samples": 4096, "image_size": 64}},
    "training": {"optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9}, "clip_grad_norm": 1.0},
    "budget": "10m",
    "device": "cuda",
}


@pytest.fixture(scope="module")
def backend() -> Iterator[LocalBackend]:
    backend = LocalBackend(_SPEC, _ROOT)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def facts(backend: LocalBackend) -> Facts:
    return backend.facts(120)


def run(backend: LocalBackend, **knobs: Any) -> TrialResult:
    request = TrialRequest(config=TrainConfig(**knobs), seed=0, time_limit_s=2.0)
    return backend.run(request, deadline_s=300, on_event=lambda _event: None)


def test_facts_name_the_device(facts: Facts) -> None:
    assert facts.device.kind == "cuda"
    assert facts.device.total_memory_bytes > 1 << 30
    assert facts.device.compute_capability is not None
    assert "fp16" in facts.device.amp_dtypes
    assert "cuda" in facts.host.versions


def test_the_space_has_what_needs_a_device(facts: Facts) -> None:
    space = build_space(parse_spec(_SPEC, _ROOT), facts)
    knobs = {dimension.knob for dimension in space.dimensions}
    assert {"pin_memory", "amp_dtype", "memory_format", "fused_optimizer"} <= knobs
    assert "num_threads" not in knobs


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"amp_dtype": "fp16"},
        {"amp_dtype": "fp16", "grad_accum_steps": 4, "fused_optimizer": True},
        {"amp_dtype": "bf16", "memory_format": "channels_last"},
        {"num_workers": 2, "prefetch_factor": 2, "pin_memory": True},
        {"pin_memory": True},
        {"fp32_precision": "tf32"},
        {"fp32_precision": "ieee"},
        {"activation_checkpointing": True},
    ],
    ids=str,
)
def test_every_setting_trains(backend: LocalBackend, knobs: dict[str, Any]) -> None:
    result = run(backend, **knobs)
    assert result.status is TrialStatus.OK, result.failure
    assert result.memory is not None
    assert result.memory.reserved_bytes is not None
    assert result.memory.allocated_bytes is not None
    assert result.memory.reserved_bytes >= result.memory.allocated_bytes > 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_steps_train(backend: LocalBackend, mode: str) -> None:
    result = run(backend, compile=mode)
    assert result.status is TrialStatus.OK, result.failure
    assert result.warm_up is not None
    assert result.warm_up.first_step_s > 1


def test_out_of_device_memory_is_data(backend: LocalBackend) -> None:
    big = LocalBackend(_SPEC | {"data": {"factory": "gpu_data:build"}}, Path(__file__).parent)
    try:
        result = run(big, micro_batch_size=1 << 22)
        assert result.status is TrialStatus.OOM, result.failure
        assert run(big, micro_batch_size=8).status is TrialStatus.OK
    finally:
        big.close()


def test_a_device_that_is_not_there() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "autotune", "doctor", "--device", "cuda:63"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert "cuda:63" in done.stderr


@pytest.mark.slow
def test_quickstart_on_the_device(tmp_path: Path) -> None:
    spec = str(_ROOT / "specs" / "quickstart.yaml")
    command = [sys.executable, "-m", "autotune", "search", spec, "--out", str(tmp_path / "study"), "--device", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    best = yaml.safe_load((tmp_path / "study" / "best.yaml").read_text())
    assert best["environment"]["device_kind"] == "cuda"
    assert best["stability"]["verdict"] == "stable"
