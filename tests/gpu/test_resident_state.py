"""What only a GPU can show of processes that run one trial after another: its memory, its precision, its speed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from autotune.config import TrainConfig
from autotune.execution import LocalBackend
from autotune.records import TrialRequest, TrialResult, TrialStatus
from autotune.stats import throughput

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
_PLAIN = TrainConfig(micro_batch_size=64)
_NEVER = 1_000_000


@pytest.fixture(scope="module")
def backend() -> Iterator[LocalBackend]:
    backend = LocalBackend(_SPEC, _ROOT)
    yield backend
    backend.close()


def run(backend: LocalBackend, config: TrainConfig, *, own: bool = False, **request: Any) -> TrialResult:
    asked = TrialRequest(config=config, seed=0, time_limit_s=2.0, in_any_process=not own, **request)
    result = backend.run(asked, deadline_s=300, on_event=lambda _event: None)
    assert result.status is TrialStatus.OK, result.failure
    return result


def first_step_s(result: TrialResult) -> float:
    assert result.warm_up is not None
    return result.warm_up.first_step_s - result.warm_up.first_wait_s


def reserved_bytes(result: TrialResult) -> int:
    assert result.memory is not None and result.memory.reserved_bytes is not None
    return result.memory.reserved_bytes


@pytest.fixture(scope="module")
def runs(backend: LocalBackend) -> list[TrialResult]:
    """The same configuration first and last, what could leave something behind between them."""
    run(backend, _PLAIN)
    return [
        run(backend, _PLAIN, own=True),
        run(backend, _PLAIN.replace(fp32_precision="tf32", micro_batch_size=512)),
        run(backend, _PLAIN.replace(amp_dtype="bf16", memory_format="channels_last", num_workers=4, prefetch_factor=2)),
        run(backend, _PLAIN.replace(amp_dtype="fp16", pin_memory=True, num_workers=2, prefetch_factor=2)),
        run(backend, _PLAIN),
    ]


def test_they_run_in_one_process_whose_start_is_paid_once(runs: list[TrialResult]) -> None:
    assert [result.runs_before for result in runs] == list(range(len(runs)))
    assert first_step_s(runs[-1]) < 0.5 * first_step_s(runs[0])


def test_the_first_and_the_last_use_the_same_memory_and_are_as_fast(runs: list[TrialResult]) -> None:
    first, last = runs[0], runs[-1]
    assert reserved_bytes(runs[1]) > 2 * reserved_bytes(first), "the counters are those of each run"
    assert reserved_bytes(last) == pytest.approx(reserved_bytes(first), rel=0.02)
    assert throughput(last.blocks) == pytest.approx(throughput(first.blocks), rel=0.05)


def test_no_precision_and_no_random_state_leaks(backend: LocalBackend) -> None:
    """A product in tf32 differs from one in fp32 in the fourth digit."""
    exact = _PLAIN.replace(fp32_precision="ieee", num_workers=1, prefetch_factor=2)
    steps: dict[str, Any] = {"max_steps": 4, "min_blocks": _NEVER, "max_blocks": _NEVER}
    first = run(backend, exact, own=True, **steps)
    run(backend, exact.replace(fp32_precision="tf32"), **steps)
    last = run(backend, exact, **steps)
    assert last.process == first.process
    assert first.steps is not None and last.steps is not None
    assert last.steps.losses == pytest.approx(first.steps.losses, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_what_was_compiled_leaves_nothing_behind(backend: LocalBackend, mode: str) -> None:
    first = run(backend, _PLAIN, own=True)
    run(backend, _PLAIN.replace(compile=mode))
    last = run(backend, _PLAIN)
    assert reserved_bytes(last) == pytest.approx(reserved_bytes(first), rel=0.02)


def test_out_of_memory_costs_no_later_run() -> None:
    backend = LocalBackend(_SPEC | {"data": {"factory": "gpu_data:build"}}, Path(__file__).parent)
    try:
        before = run(backend, _PLAIN)
        request = TrialRequest(
            config=TrainConfig(micro_batch_size=1 << 22), seed=0, time_limit_s=2.0, in_any_process=True
        )
        failed = backend.run(request, deadline_s=300, on_event=lambda _event: None)
        assert failed.status is TrialStatus.OOM
        assert failed.runs_before == 0, "a failure counts in a process of its own only"
        after = run(backend, _PLAIN)
        assert reserved_bytes(after) == pytest.approx(reserved_bytes(before), rel=0.02)
    finally:
        backend.close()
