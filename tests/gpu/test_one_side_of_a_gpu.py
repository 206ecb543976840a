"""One side alone with a GPU: the step takes what it takes beside a loader, and the loader needs no device."""

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
    "data": {"synthetic": {"samples": 8192, "image_size": 128}},
    "training": {"optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9}},
    "budget": "10m",
    "device": "cuda",
}
_PLAIN = TrainConfig(micro_batch_size=64, num_workers=4, prefetch_factor=2, fp32_precision="ieee")


@pytest.fixture(scope="module")
def backend() -> Iterator[LocalBackend]:
    backend = LocalBackend(_SPEC, _ROOT)
    backend.facts(120)
    yield backend
    backend.close()


def run(backend: LocalBackend, side: Any, config: TrainConfig = _PLAIN) -> TrialResult:
    request = TrialRequest(config=config, seed=0, time_limit_s=3.0, in_any_process=True, side=side)
    result = backend.run(request, deadline_s=300, on_event=lambda _event: None)
    assert result.status is TrialStatus.OK, result.failure
    return result


@pytest.mark.parametrize("pin_memory", [False, True])
def test_the_step_alone_takes_what_it_takes_beside_a_loader(backend: LocalBackend, pin_memory: bool) -> None:
    config = _PLAIN.replace(pin_memory=pin_memory)
    run(backend, None, config)  # whose process stays: the first step of a new one is slow
    whole, step = run(backend, None, config), run(backend, "step", config)
    assert whole.rates and step.side_rate
    assert step.side_rate.per_s == pytest.approx(whole.rates.demand_per_s, rel=0.1)
    assert step.memory and whole.memory
    assert step.memory.reserved_bytes == pytest.approx(whole.memory.reserved_bytes, rel=0.1)


def test_the_loader_alone_touches_no_device_and_leaves_the_resident_alone(backend: LocalBackend) -> None:
    run(backend, None)
    before, loader, after = run(backend, "step"), run(backend, "loader"), run(backend, "step")
    assert loader.memory and loader.memory.reserved_bytes is None
    assert loader.process != before.process == after.process
    assert loader.side_rate and loader.side_rate.per_s > 0
