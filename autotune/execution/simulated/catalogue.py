"""The simulated worlds in which searches are judged, each a function of the hardware.

Times follow from how long the hardware computes one sample with its best settings (bf16, channels_last): 0.37 ms on the
H200 (ResNet-50), 2 ms on two CPU cores. The values of the hardware were measured: docs/worlds.md.

What a run costs in a process that has run others before was not measured on a GPU yet. In the records of an H200
(2026-11-27), a start takes 0.7 s for ResNet-50 and 1.5 s for ViT-B/16. Much of it builds the model on the CPU, which
each run does again. First steps take 2 to 3 s. Each run repeats the part that a new shape or number format needs: 0.6 s
is a guess. On two CPU cores a ResNet-18's start took 0.1 s to 0.2 s in either kind of process, its first step 0.25 s.
The first step of 7 s stands for libraries that get ready once in a process. A fork of the template, which has all
modules loaded, took 0.02 s on two CPU cores; 0.1 s on the H200's host is a guess.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from autotune.execution.simulated.world import Hardware, Noise, StepTime, World

GIB = 1 << 30
CPU = Hardware(
    name="2 CPU cores, calm",
    device="cpu",
    cores=2,
    memory_bytes=8 * GIB,
    start_s=0.1,
    first_step_s=0.15,
    next_start_s=0.08,
    next_first_step_s=0.12,
    fork_s=0.02,
    worker_start_s=0.02,
    epoch_restart_s=0.003,
    noise=Noise(between=0.02, step=0.03, fetch=0.3),
)
NOISY_CPU = dataclasses.replace(
    CPU,
    name="2 CPU cores, noisy",
    noise=Noise(between=0.1, step=0.08, fetch=0.5, outlier_share=0.05, outlier_slows=1.4, drift=0.05),
)
H200 = Hardware(
    name="H200, 16 cores",
    device="cuda",
    cores=16,
    memory_bytes=139 * GIB,
    start_s=1.2,
    first_step_s=3.0,
    next_start_s=0.7,
    next_first_step_s=0.6,
    fork_s=0.1,
    worker_start_s=0.03,
    epoch_restart_s=0.01,
    noise=Noise(between=0.001, step=0.005, fetch=0.3),
)
HARDWARE = {"cpu": CPU, "cpu-noisy": NOISY_CPU, "h200": H200}


def worlds(hardware: Hardware) -> dict[str, World]:
    """All worlds, by name."""
    computing = _computing(hardware)
    best_s = computing.step.sample_s * computing.step.amp * computing.step.channels_last
    cores = hardware.cores
    # With the largest number of workers, the loader delivers half, all or twice of what the step could take.
    most = 8 if hardware.device == "cpu" else 16
    waiting = _changed(computing, "loader-bound by waiting", sample_wait_s=2 * most * best_s)
    made = [
        waiting,
        _changed(computing, "loader-bound by computing", sample_cpu_s=1.4 * cores * best_s),
        computing,
        _changed(computing, "both close", sample_wait_s=0.5 * most * best_s),
        _changed(waiting, "epoch shorter than the queue", samples=_short_epoch(hardware)),
        _changed(waiting, "first step of 7 s", samples=_short_epoch(hardware) * 4, first_step_s=7.0, budget="5m"),
        _changed(waiting, "a slow batch every 50", sample_wait_s=0.25 * most * best_s, slow_every=50, slow_times=5.0),
        _neighbour(waiting, hardware),
        _changed(
            waiting,
            "cold first epoch",
            sample_wait_s=0.5 * most * best_s,
            samples=2 * _short_epoch(hardware),
            cold_times=2.0,
        ),
        _steps_of(computing, "steps of 2 ms", 0.002),
        _steps_of(computing, "steps of 2 s", 2.0),
        _bursts(computing, hardware),
    ]
    return {world.name: world for world in made}


def _computing(hardware: Hardware) -> World:
    """Compute-bound, as soon as loader processes do the loading."""
    on_device = hardware.device == "cuda"
    if on_device:
        step = StepTime(sample_s=0.00094, fixed_s=0.004, optimizer_s=0.003, amp=0.5, copy_s=2e-5, host_s=0.004)
        search: dict[str, object] = {
            "micro_batch_size": [32, 64, 128, 256],
            "grad_accum_steps": [1, 2, 4, 8],
            "amp_dtype": ["none", "bf16"],
            "memory_format": ["contiguous", "channels_last"],
            "num_workers": [0, 2, 4, 8, 16],
            "pin_memory": [False, True],
        }
    else:
        step = StepTime(sample_s=0.0042, fixed_s=0.006, optimizer_s=0.004)
        search = {
            "micro_batch_size": [8, 16, 32],
            "grad_accum_steps": [1, 2, 4],
            "amp_dtype": ["none", "bf16"],
            "memory_format": ["contiguous", "channels_last"],
            "num_workers": [0, 1, 2, 4, 8],
        }
    held = {
        "prefetch_factor": 2,
        "compile": "none",
        "fused_optimizer": False,
        "activation_checkpointing": False,
        **({"fp32_precision": "tf32"} if on_device else {"num_threads": hardware.cores}),
    }
    micro = 32 if on_device else 8
    effective = 256 if on_device else 32
    best_s = step.sample_s * step.amp * step.channels_last
    return World(
        name="compute-bound",
        hardware=hardware,
        step=step,
        sample_wait_s=0.3 * best_s,
        sample_cpu_s=0.3 * best_s,
        samples=100_000 if on_device else 20_000,
        budget="5m" if on_device else "2m",
        search=tuple(_frozen({**search, **held}).items()),
        baseline=(("micro_batch_size", micro), ("amp_dtype", "none"), ("num_workers", 0)),
        effective_batch_size=effective,
        sample_memory_bytes=(200 if on_device else 20) << 20,
    )


def _short_epoch(hardware: Hardware) -> int:
    """Samples of an epoch: fewer than the prefetch queue of the largest number of workers holds."""
    return 4096 if hardware.device == "cuda" else 320


def _neighbour(world: World, hardware: Hardware) -> World:
    noise = dataclasses.replace(
        hardware.noise, burst_every_s=6.0, burst_s=1.5, burst_cores=0.75 * hardware.cores, burst_unseen=0.2
    )
    busy = dataclasses.replace(hardware, noise=noise)
    cores = hardware.cores
    best_s = world.step.sample_s * world.step.amp * world.step.channels_last
    changed = dataclasses.replace(world, hardware=busy, sample_wait_s=best_s, sample_cpu_s=0.5 * cores * best_s)
    return dataclasses.replace(changed, name="noisy neighbour")


def _bursts(world: World, hardware: Hardware) -> World:
    """Steps so long that most of them are free of other work or not: that keeps the machine busy half of the time."""
    noise = dataclasses.replace(hardware.noise, burst_every_s=2.0, burst_s=2.0, burst_cores=2.0 * hardware.cores)
    largest, step = world.effective_batch_size, world.step
    sample_s = 0.5 / (0.2 + 0.9) / largest
    step = dataclasses.replace(step, sample_s=sample_s, fixed_s=0.2 * largest * sample_s, amp=1.0, channels_last=0.9)
    busy = dataclasses.replace(hardware, noise=noise)
    return dataclasses.replace(world, name="steps of 0.5 s beside bursts", hardware=busy, step=step, budget="2m")


def _steps_of(world: World, name: str, seconds: float) -> World:
    """`world` with steps of `seconds` in its fastest configuration, the one with the largest micro-batch."""
    largest = world.effective_batch_size
    step = world.step
    usual_s = step.fixed_s + step.optimizer_s + step.sample_s * step.amp * step.channels_last * largest
    times = seconds / usual_s
    scaled = {field: getattr(step, field) * times for field in ("sample_s", "fixed_s", "optimizer_s", "copy_s")}
    host_s = min(step.host_s, step.host_s * times)
    return dataclasses.replace(
        world,
        name=name,
        step=dataclasses.replace(step, host_s=host_s, **scaled),
        sample_wait_s=world.sample_wait_s * times,
        sample_cpu_s=world.sample_cpu_s * times,
        budget="10m" if seconds > 1 else "1m" if world.hardware.device == "cpu" else "4m",
    )


def _changed(world: World, name: str, *, first_step_s: float = math.nan, **changes: Any) -> World:
    hardware = world.hardware
    if not math.isnan(first_step_s):
        hardware = dataclasses.replace(hardware, first_step_s=first_step_s)
    return dataclasses.replace(world, name=name, hardware=hardware, **changes)


def _frozen(values: dict[str, object]) -> dict[str, object]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
