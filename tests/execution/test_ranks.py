"""Trials of two ranks over gloo: the training of one, and what becomes of all when something happens to one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ranked
from support.processes import MARK, gone, marked

from autotune.config import TrainConfig
from autotune.execution import LocalBackend
from autotune.records import TrialRequest, TrialResult, TrialStatus

pytestmark = pytest.mark.slow

WORKLOAD = Path(__file__).parent / "workload"
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
DEADLINE_S = 150.0
"""No trial here takes nearly as long, unless this has ended it; a rank that hangs would sleep far longer."""


def spec(ranks: int) -> dict[str, Any]:
    """One for all tests: what differs between them are knobs."""
    return {
        "model": {"factory": "ranked:build_model"},
        "data": {"factory": "ranked:build_data"},
        "search": {
            "custom": {
                "model_dtype": {"values": list(TOLERANCE), "arg": "model.args.dtype"},
                "data_dtype": {"values": list(TOLERANCE), "arg": "data.args.dtype"},
                "shared": {"values": [False, True], "arg": "data.args.shared"},
                "hang_after": {"values": [None, 50], "arg": "data.args.hang_after"},
            }
        },
        "budget": "1m",
        "device": "cpu",
        "execution": {"ranks_per_trial": ranks},
    }


@pytest.fixture(scope="module")
def backend(mark: str) -> Iterator[LocalBackend]:
    backend = LocalBackend(spec(ranks=2), WORKLOAD)
    backend.facts(60)
    yield backend
    backend.close()
    assert gone(mark)


@pytest.fixture(scope="module")
def alone() -> Iterator[LocalBackend]:
    """Trials of one rank; their processes do not carry the mark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(MARK, raising=False)
        backend = LocalBackend(spec(ranks=1), WORKLOAD)
    yield backend
    backend.close()


def config_of(micro: int, *, ranks: int = 2, **changes: Any) -> TrainConfig:
    ddp = {"data_parallel": "ddp", "bucket_cap_mb": 25, "gradient_as_bucket_view": False, "static_graph": False}
    custom = {"model_dtype": "float64", "data_dtype": "float64", "shared": False, "hang_after": None}
    config = TrainConfig(micro_batch_size=micro, world_size=ranks)
    return config.with_values({**custom, **(ddp if ranks > 1 else {}), **changes})


def run(backend: LocalBackend, config: TrainConfig, **request: Any) -> TrialResult:
    asked = TrialRequest(config=config, **({"seed": 0, "time_limit_s": 0.5, "max_blocks": 4} | request))
    return backend.run(asked, deadline_s=DEADLINE_S, on_event=lambda _event: None)


def losses(backend: LocalBackend, config: TrainConfig) -> list[float]:
    result = run(backend, config, max_steps=30, time_limit_s=20, max_blocks=400, watch_training=True)
    assert result.status is TrialStatus.OK, result.failure
    assert result.steps is not None
    assert set(result.steps.samples) == {config.effective_batch_size}
    return result.steps.losses


_FSDP = {"grad_accum_steps": 2, "data_parallel": "fsdp", "bucket_cap_mb": None, "gradient_as_bucket_view": None}


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({}, "float64"),
        ({"grad_accum_steps": 2}, "float64"),
        ({"static_graph": True, "gradient_as_bucket_view": True}, "float64"),
        (_FSDP, "float64"),
        ({"grad_accum_steps": 2}, "float32"),
        (_FSDP, "float32"),
    ],
    ids=["ddp", "accumulated", "static-graph", "fsdp", "accumulated-float32", "fsdp-float32"],
)
def test_two_ranks_learn_what_one_would(
    backend: LocalBackend, alone: LocalBackend, dtype: str, changes: dict[str, Any]
) -> None:
    stream = {"model_dtype": dtype, "data_dtype": dtype, "shared": True}
    two = config_of(4, **stream, **changes)
    one = config_of(8, ranks=1, **stream, grad_accum_steps=two.grad_accum_steps)
    assert two.effective_batch_size == one.effective_batch_size
    apart, together = losses(alone, one), losses(backend, two)
    assert len(apart) == len(together) == 30
    assert apart[0] - apart[-1] > 1e-3, "there is something to be learnt"
    assert together == pytest.approx(apart, rel=TOLERANCE[dtype])


def test_a_healthy_trial_tells_of_all_ranks(backend: LocalBackend) -> None:
    config = config_of(ranked.OK, grad_accum_steps=2)
    result = run(backend, config)
    assert result.status is TrialStatus.OK
    assert all(block.samples == block.steps * config.effective_batch_size for block in result.blocks)
    assert [rank.rank for rank in result.ranks] == [0, 1]
    assert result.memory is not None
    assert result.memory.peak_bytes == max(rank.peak_memory_bytes for rank in result.ranks)


def test_the_slowest_rank_is_named(backend: LocalBackend) -> None:
    """Timed for so long that the other would have to be halted for seconds to be taken for it."""
    result = run(backend, config_of(ranked.SLOW), time_limit_s=3.0, max_blocks=400, target_relative_error=0.0)
    slowest = result.slowest_rank
    assert slowest is not None
    assert slowest.rank == ranked.BAD_RANK
    assert slowest.own_step_s is not None
    assert slowest.own_step_s > 0.019


@pytest.mark.parametrize(
    ("size", "status", "reason"),
    [
        (ranked.OOM_RAISED, TrialStatus.OOM, "rank 1: OutOfMemoryError: simulated: tried to allocate 2.00 GiB"),
        (ranked.OOM_KILLED, TrialStatus.OOM, "rank 1 was killed by signal 9"),
        (ranked.SEGFAULT, TrialStatus.CRASHED, "rank 1 was killed by signal 11 (SIGSEGV)"),
        (ranked.RAISE, TrialStatus.FAILED, "rank 1: ValueError: the 7th layer is missing"),
        (ranked.HANG_IN_FORWARD, TrialStatus.TIMEOUT, "rank 1 hangs after optimizer step 5"),
        (ranked.HANG_AT_ONCE, TrialStatus.TIMEOUT, "rank 1 hangs after optimizer step 0"),
        (ranked.EXIT_0, TrialStatus.CRASHED, "rank 1"),
    ],
)
def test_a_fault_of_one_rank_ends_all(
    backend: LocalBackend, mark: str, size: int, status: TrialStatus, reason: str
) -> None:
    result = run(backend, config_of(size), time_limit_s=30, max_blocks=400, target_relative_error=0.0)
    assert result.status is status, result.output_tail
    assert result.failure is not None
    assert reason in result.failure.reason
    assert result.wall_s < DEADLINE_S, "it was ended for its rank, not at its deadline"
    assert len(marked(mark)) == 1, "only the template may live on"


def test_after_all_of_these_the_same_template_trains_on(backend: LocalBackend, mark: str) -> None:
    (template,) = marked(mark)
    assert run(backend, config_of(ranked.OK)).status is TrialStatus.OK
    assert marked(mark) == [template]


def test_a_loader_that_hangs_on_one_rank_ends_all(backend: LocalBackend, mark: str) -> None:
    config = config_of(ranked.OK, hang_after=50, num_workers=1, prefetch_factor=2)
    result = run(backend, config, time_limit_s=30, max_blocks=400, target_relative_error=0.0)
    assert result.status is TrialStatus.TIMEOUT
    assert result.failure is not None
    assert "rank 1 hangs" in result.failure.reason
    assert result.wall_s < DEADLINE_S, "it was ended for its rank, not at its deadline"
    assert len(marked(mark)) == 1, "only the template may live on"


def test_a_deadline_ends_all(backend: LocalBackend, mark: str) -> None:
    request = TrialRequest(
        config=config_of(ranked.OK), seed=0, time_limit_s=60, max_blocks=400, target_relative_error=0.0
    )
    result = backend.run(request, deadline_s=3, on_event=lambda _event: None)
    assert result.status is TrialStatus.TIMEOUT
    assert result.failure is not None
    assert result.failure.reason == "not done after 3 s; its process was killed"
    assert len(marked(mark)) == 1
