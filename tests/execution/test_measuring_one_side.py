"""Real processes that measure one side: the step in the resident, the loader in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lasting
import pytest
from support.processes import gone, marked

from autotune.config import TrainConfig
from autotune.execution import LocalBackend
from autotune.records import TrialRequest, TrialResult, TrialStatus

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")]

WORKLOAD = Path(__file__).parent / "workload"


@pytest.fixture(scope="module")
def backend(mark: str) -> Iterator[LocalBackend]:
    spec: dict[str, Any] = {
        "model": {"factory": "lasting:build_model"},
        "data": {"factory": "lasting:build_data"},
        "training": {"effective_batch_size": "free", "optimizer": {"name": "sgd", "lr": 0.1}},
        "budget": "1m",
        "device": "cpu",
    }
    backend = LocalBackend(spec, WORKLOAD)
    yield backend
    backend.close()
    assert gone(mark)


def run(
    backend: LocalBackend, side: Any = None, size: int = lasting.OK, workers: int = 1, limit_s: float = 0.5
) -> TrialResult:
    config = TrainConfig(micro_batch_size=size, num_workers=workers, prefetch_factor=2 if workers else None)
    asked = TrialRequest(config=config, seed=3, time_limit_s=limit_s, in_any_process=True, side=side)
    return backend.run(asked, deadline_s=30.0, on_event=lambda _event: None)


def test_each_side_says_its_rate_and_no_other(backend: LocalBackend) -> None:
    step, loader = run(backend, "step"), run(backend, "loader")
    for result in (step, loader):
        assert (result.status, result.rates) == (TrialStatus.OK, None)
        assert result.side_rate is not None
        assert result.side_rate.per_s > 0
    assert step.blocks
    assert step.side_rate is not None
    assert step.side_rate.fetch_s is None
    assert (loader.blocks, loader.steps, loader.warm_up) == ((), None, None)


def test_a_resident_runs_steps_and_waits_while_a_loader_is_drained(backend: LocalBackend) -> None:
    whole = run(backend)
    first, loader, second = run(backend, "step"), run(backend, "loader"), run(backend, "step")
    assert first.process == second.process == whole.process
    assert second.runs_before == first.runs_before + 1
    assert loader.process != first.process
    assert loader.runs_before == 0


def test_a_resident_that_dies_meanwhile_is_replaced(backend: LocalBackend, mark: str) -> None:
    first = run(backend)
    max(marked(mark), key=lambda process: process.create_time()).kill()
    run(backend, "loader")
    step = run(backend, "step")
    assert step.status is TrialStatus.OK
    assert step.process != first.process


def test_a_step_that_fails_says_so(backend: LocalBackend) -> None:
    result = run(backend, "step", lasting.RAISES)
    assert (result.status, result.side_rate) == (TrialStatus.FAILED, None)
    assert result.side == "step"
