"""Machines in formulas: tables of whole spaces as a sweep would record them, with the physics right, or broken.

Good physics is what training does: time near a + c·b in each cell, an optimizer's share that accumulation dilutes,
loading that processes share, memory that ends. The broken worlds each break one assumption of the performance model.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autotune.config import TrainConfig
from autotune.records import BlockRow, Facts, Memory, RecordedRun, Table, TrialStatus, WarmUp
from autotune.search import build_space
from autotune.spec import parse_spec
from support.facts import cpu_facts, cuda_facts

GIB = 1 << 30
_BLOCKS = 10
_TRIAL_S = 1.5


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Seconds of a micro-batch's parts, and bytes at the peak; compilation apart."""

    compute_s: float
    loading_s: float
    """Of one micro-batch, by one process."""
    optimizer_s: float
    memory_bytes: float
    compile_s: float = 0.0
    overlaps: bool = False
    """Whether the device computes while the training process loads."""

    def step_s(self, config: TrainConfig) -> float:
        busy_s = self.compute_s + self.optimizer_s / config.grad_accum_steps
        if not config.num_workers:
            alone_s = max(busy_s, self.loading_s) if self.overlaps else busy_s + self.loading_s
            return config.grad_accum_steps * alone_s
        return config.grad_accum_steps * max(busy_s, 1.05 * self.loading_s / config.num_workers)


World = Callable[[TrainConfig], Truth]
GPU_SPEC: dict[str, Any] = {
    "model": {"timm": "resnet50"},
    "data": {"synthetic": {"image_size": 224, "samples": 4096}},
    "budget": "10m",
    "baseline": {"micro_batch_size": 32},
    "search": {
        "micro_batch_size": {"min": 8, "max": 512},
        "grad_accum_steps": [1, 2, 4],
        "amp_dtype": ["none", "bf16", "fp16"],
        "num_workers": [0, 2, 4, 8],
        "prefetch_factor": 2,
        "pin_memory": [False, True],
        "memory_format": ["contiguous", "channels_last"],
        "compile": ["none", "default"],
        "fp32_precision": "tf32",
        "fused_optimizer": [False, True],
        "activation_checkpointing": False,
    },
}
CPU_SPEC: dict[str, Any] = {
    "model": {"timm": "resnet18"},
    "data": {"synthetic": {"image_size": 32, "samples": 4096}},
    "training": {"effective_batch_size": "free"},
    "budget": "5m",
    "baseline": {"micro_batch_size": 16},
    "search": {
        "micro_batch_size": [4, 8, 16, 32, 48, 64, 96, 128],
        "grad_accum_steps": [1, 2, 4],
        "amp_dtype": ["none", "bf16"],
        "num_workers": 0,
        "memory_format": ["contiguous", "channels_last"],
        "compile": "none",
        "fused_optimizer": False,
        "num_threads": [1, 2, 4],
        "activation_checkpointing": False,
    },
}


def gpu(config: TrainConfig) -> Truth:
    """A data-centre GPU: AMP and channels_last help together, fp32 channels_last is slow, 39 % does not fit."""
    amp = config.amp_dtype != "none"
    per_sample_s = 1 / (1300 if amp else 500)
    if config.memory_format == "channels_last":
        per_sample_s *= 0.74 if amp else 1.6
    if config.compile == "default":
        per_sample_s *= 0.85
    batch = config.micro_batch_size
    compute_s = per_sample_s * (batch + 12) + (0.0 if config.pin_memory else 2e-5 * batch)
    memory = 1.5 * GIB + batch * (0.09 if amp else 0.17) * GIB * (0.85 if config.compile == "default" else 1)
    return Truth(
        compute_s=compute_s,
        loading_s=batch / 400,
        optimizer_s=0.004 if config.fused_optimizer else 0.009,
        memory_bytes=memory,
        compile_s=35.0 if config.compile == "default" else 0.0,
        overlaps=True,
    )


def cpu(config: TrainConfig) -> Truth:
    """Four cores, everything in memory: threads and AMP help, the optimizer costs as much as eight samples."""
    amp = config.amp_dtype == "bf16"
    speed = {1: 1.0, 2: 1.8, 4: 3.0}[config.num_threads or 4] * (1.5 if amp else 1.0)
    speed *= (1.25 if amp else 1.12) if config.memory_format == "channels_last" else 1.0
    batch = config.micro_batch_size
    return Truth(
        compute_s=(batch + 3) / (100 * speed),
        loading_s=batch * 2e-5,
        optimizer_s=0.02,
        memory_bytes=0.6 * GIB + batch * (4e6 if amp else 7e6),
    )


def with_interactions(world: World, size: float) -> World:
    """Every cell and every batch size has luck of its own: what knobs do does not add up."""

    def broken(config: TrainConfig) -> Truth:
        truth = world(config)
        values = [str(value) for knob, value in config.to_dict().items() if knob != "grad_accum_steps"]
        seed = int(hashlib.sha256("|".join(values).encode()).hexdigest()[:12], 16)
        luck = math.exp(random.Random(seed).gauss(0, size))
        return _changed(truth, compute_s=truth.compute_s * luck)

    return broken


def with_knee(world: World, at: int = 32) -> World:
    """Beyond it a sample costs twice as much: a cache is full."""

    def broken(config: TrainConfig) -> Truth:
        truth = world(config)
        over = max(config.micro_batch_size - at, 0) / config.micro_batch_size
        return _changed(truth, compute_s=truth.compute_s * (1 + over))

    return broken


def with_cliff(world: World, at: int = 48) -> World:
    """From there on everything takes half as long again."""

    def broken(config: TrainConfig) -> Truth:
        truth = world(config)
        return _changed(truth, compute_s=truth.compute_s * (1.5 if config.micro_batch_size >= at else 1.0))

    return broken


def non_monotone(world: World) -> World:
    """A curve over the batch size that goes up and down: kernels are chosen anew at every size."""

    def broken(config: TrainConfig) -> Truth:
        truth = world(config)
        wave = 1 + 0.3 * math.sin(2.1 * math.log2(config.micro_batch_size))
        return _changed(truth, compute_s=truth.compute_s * wave)

    return broken


def _changed(truth: Truth, **parts: float) -> Truth:
    return Truth(**{**truth.__dict__, **parts})


def record(
    name: str,
    spec: dict[str, Any],
    facts: Facts,
    world: World,
    *,
    memory_bytes: float,
    run_noise: float = 0.02,
    block_noise: float = 0.02,
    repeats: int = 3,
    seed: int = 0,
) -> Table:
    """What a sweep would write; `memory_bytes`: where the memory ends, whatever the facts say."""
    parsed = parse_spec(spec, ".")
    space = build_space(parsed, facts)
    rng = random.Random(seed)
    runs = [
        _run(config, world(config), repeat, memory_bytes, run_noise, block_noise, rng)
        for config in space.configurations()
        for repeat in range(repeats)
    ]
    return Table(
        name=name,
        created="2026-01-01T00:00:00+00:00",
        command="simulated",
        spec=parsed.model_dump(mode="json", exclude_none=True),
        facts=facts,
        trial_s=_TRIAL_S,
        planned=len(runs) // repeats,
        size=len(runs) // repeats,
        repeats=repeats,
        runs=tuple(runs),
    )


def _run(
    config: TrainConfig,
    truth: Truth,
    repeat: int,
    memory_bytes: float,
    run_noise: float,
    block_noise: float,
    rng: random.Random,
) -> RecordedRun:
    used = int(truth.memory_bytes)
    common = {"config": config, "repeat": repeat, "seed": repeat, "started": "2026-01-01T00:00:00+00:00"}
    if used > memory_bytes:
        return RecordedRun(
            status=TrialStatus.OOM, samples_per_s=None, wall_s=1.0, failure="simulated: out of memory", **common
        )
    luck = rng.lognormvariate(0, run_noise)
    step_s = truth.step_s(config) * luck
    steps = max(1, round(_TRIAL_S / _BLOCKS / step_s))
    blocks = []
    busy_s = (truth.compute_s * config.grad_accum_steps + truth.optimizer_s) * luck
    for _ in range(_BLOCKS if steps > 1 else 4):
        scale = steps * rng.lognormvariate(0, block_noise)
        compute_s, optimizer_s = truth.compute_s * config.grad_accum_steps * luck, truth.optimizer_s * luck
        row = BlockRow(
            steps,
            steps * config.effective_batch_size,
            step_s * scale,
            max(step_s - busy_s, 0.0) * scale,
            0.0,
            compute_s * scale,
            optimizer_s * scale,
            (),
        )
        blocks.append(row)
    first_step_s = step_s + truth.compile_s
    timed_s = sum(row.seconds for row in blocks)
    samples = sum(row.samples for row in blocks)
    return RecordedRun(
        status=TrialStatus.OK,
        samples_per_s=samples / timed_s,
        blocks=tuple(blocks),
        warm_up=WarmUp(steps=3, seconds=2 * step_s + first_step_s, first_step_s=first_step_s, settled=True),
        start_up_s=0.3,
        wall_s=0.5 + 2 * step_s + first_step_s + timed_s,
        memory=Memory(
            reserved_bytes=used if config.num_threads is None else None,
            resident_bytes=used,
            resident_growth_bytes=used // 2,
        ),
        **common,
    )


def gpu_table(world: World = gpu, name: str = "gpu") -> Table:
    return record(name, GPU_SPEC, cuda_facts(), world, memory_bytes=0.95 * 40 * GIB)


def cpu_table(world: World = cpu, name: str = "cpu") -> Table:
    return record(name, CPU_SPEC, cpu_facts(), world, memory_bytes=1.2 * GIB, run_noise=0.03)


BROKEN: dict[str, Callable[[], Table]] = {
    "random interactions": lambda: cpu_table(with_interactions(cpu, 0.25)),
    "a knee": lambda: cpu_table(with_knee(cpu)),
    "a cliff at 48": lambda: cpu_table(with_cliff(cpu)),
    "a non-monotone batch curve": lambda: cpu_table(non_monotone(cpu)),
}
