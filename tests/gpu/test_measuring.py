"""What only a GPU can show of the measurement: phases from its own clock, NVML's sensors, and the watched runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from autotune.config import TrainConfig
from autotune.execution import LocalBackend
from autotune.records import TrialRequest, TrialResult, TrialStatus

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here"),
]

_ROOT = Path(__file__).parents[2]
_SPEC: dict[str, Any] = {
    "model": {"timm": "resnet18", "args": {"num_classes": 10}},
    "data": {"synthetic": {"samples": 4096, "image_size": 64}},
    "training": {"optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9}},
    "budget": "10m",
    "device": "cuda",
}
_PLAIN = TrainConfig(micro_batch_size=64, fp32_precision="ieee")
_NEVER = 1_000_000


@pytest.fixture(scope="module")
def backend() -> Iterator[LocalBackend]:
    backend = LocalBackend(_SPEC, _ROOT)
    backend.facts(120)
    yield backend
    backend.close()


def timed(backend: LocalBackend, config: TrainConfig, **request: Any) -> TrialResult:
    asked = TrialRequest(config=config, seed=0, time_limit_s=3.0, **request)
    return backend.run(asked, deadline_s=300, on_event=lambda _event: None)


def watched(backend: LocalBackend, config: TrainConfig, steps: int = 40) -> TrialResult:
    return timed(backend, config, watch_training=True, max_steps=steps, min_blocks=_NEVER, max_blocks=_NEVER)


@pytest.mark.parametrize("grad_accum_steps", [1, 4])
def test_the_phases_of_a_block_add_up_to_it(backend: LocalBackend, grad_accum_steps: int) -> None:
    result = timed(backend, _PLAIN.replace(grad_accum_steps=grad_accum_steps))
    assert result.status is TrialStatus.OK, result.failure
    for block in result.blocks:
        assert set(block.phases) == {"data_wait", "copy", "forward_backward", "optimizer"}
        assert sum(block.phases.values()) == pytest.approx(block.seconds)
        assert all(seconds >= 0 for seconds in block.phases.values())


def test_nvml_says_how_the_device_was(backend: LocalBackend) -> None:
    result = timed(backend, _PLAIN)
    states = [block.machine for block in result.blocks if block.machine]
    assert states
    assert all(state.sm_clock_mhz and state.power_w and state.temperature_c for state in states)
    assert all(state.device_allocated_bytes and state.device_allocated_bytes > 1 << 20 for state in states)
    assert all(state.allocator_retries == 0 for state in states)
    energy = [state.energy_j for state in states]
    assert all(joules is None or joules >= 0 for joules in energy)


@pytest.mark.parametrize("amp_dtype", ["bf16", "fp16"])
def test_a_watched_run_in_low_precision_follows_the_reference(backend: LocalBackend, amp_dtype: str) -> None:
    reference, probe = watched(backend, _PLAIN), watched(backend, _PLAIN.replace(amp_dtype=amp_dtype))
    assert reference.steps and probe.steps
    assert len(reference.steps.losses) == 40
    taken = [loss for loss, skipped in zip(probe.steps.losses, probe.steps.skipped, strict=True) if not skipped]
    assert taken[0] == pytest.approx(reference.steps.losses[0], rel=0.02)
    assert probe.first_gradient and reference.first_gradient and reference.largest_activation
    assert probe.first_gradient.norm == pytest.approx(reference.first_gradient.norm, rel=0.1)
    assert len(probe.steps.gradient_norms) == len(probe.steps.losses)
