"""Runs on record, with just what a gate looks at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from autotune.config import TrainConfig
from autotune.records import (
    Block,
    Failure,
    FirstGradient,
    LargestActivation,
    MachineState,
    Memory,
    OptimizerSteps,
    TrialResult,
    TrialStatus,
)

MIB, GIB = 1 << 20, 1 << 30
BASELINE = TrainConfig()


def run(
    losses: Sequence[float] = (2.0, 1.0),
    *,
    samples: int = 32,
    skipped: Sequence[bool] | None = None,
    scales: Sequence[float] = (),
    norms: Sequence[float] = (),
    config: TrainConfig = BASELINE,
    seed: int = 0,
    status: TrialStatus = TrialStatus.OK,
    blocks: Iterable[Block] = (),
    memory: Memory | None = None,
    failure: Failure | None = None,
) -> TrialResult:
    """One entry of `losses` for each optimizer step, of `samples` each."""
    steps = OptimizerSteps(
        losses=list(losses),
        samples=[samples] * len(losses),
        skipped=list(skipped or [False] * len(losses)),
        loss_scales=list(scales),
        gradient_norms=list(norms),
    )
    return TrialResult(
        config=config,
        status=TrialStatus.FAILED if failure else status,
        seed=seed,
        blocks=tuple(blocks),
        steps=steps,
        wall_s=1.0,
        memory=memory,
        failure=failure,
    )


def without_steps(status: TrialStatus = TrialStatus.CRASHED) -> TrialResult:
    return TrialResult(config=BASELINE, status=status, seed=0, wall_s=1.0)


def gradient(sketch: Sequence[float] = (3.0, 4.0), *, norm: float = 5.0, zero_share: float = 0.0) -> FirstGradient:
    return FirstGradient(sketch=list(sketch), norm=norm, zero_share=zero_share)


def activation(value: float, module: str = "layer1") -> LargestActivation:
    return LargestActivation(value=value, module=module)


def on_cpu(resident_bytes: int) -> Memory:
    return Memory(resident_bytes=resident_bytes, resident_growth_bytes=1)


def on_device(reserved_bytes: int) -> Memory:
    return Memory(
        allocated_bytes=reserved_bytes // 2,
        reserved_bytes=reserved_bytes,
        resident_bytes=15 * GIB,
        resident_growth_bytes=1,
    )


def block(machine: MachineState | None = None, *, steps: int = 4) -> Block:
    return Block(steps=steps, samples=32 * steps, seconds=0.1 * steps, phases={}, machine=machine)


def machine(
    *,
    available: int = 8 * GIB,
    shm_free: int | None = None,
    resident: int = GIB,
    loader: int | None = None,
    allocated: int | None = None,
    retries: int | None = None,
) -> MachineState:
    """What the machine had at the end of a block."""
    return MachineState(
        available_memory_bytes=available,
        shm_free_bytes=shm_free,
        resident_bytes=resident,
        loader_bytes=loader,
        device_allocated_bytes=allocated,
        allocator_retries=retries,
    )
