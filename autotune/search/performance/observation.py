"""What one trial tells the performance model. It is an attribute of the Optuna trial, so that any storage keeps it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from autotune.config import TrainConfig
from autotune.records import Rates, SideRate, SlowBatches, StepPhase, TrialResult, TrialStatus, once_for_each
from autotune.stats import relative_standard_error, throughput, undisturbed

OBSERVATION = "observation"
"""Name of the attribute."""
PREDICTED = "predicted"
"""Name of the attribute with what was expected of a trial: samples per second, and the ends of their 95 % interval."""
_LARGEST_ERROR = 0.5
"""Relative error of a measurement from one block, whose spread is not known."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """Times in seconds of one optimizer step, unless stated otherwise. None if the trial has no measurement."""

    status: str
    wall_s: float
    """From the request to the end of the process."""
    overhead_s: float
    """The part of it outside training steps."""
    first_step_s: float | None = None
    """With compilation, and everything else that happens once."""
    samples_per_s: float | None = None
    relative_error: float = _LARGEST_ERROR
    """Standard error of `samples_per_s` over its value, inside this run."""
    data_wait_s: float = 0.0
    compute_s: float = 0.0
    """Forward, backward, and the copies to the device."""
    optimizer_s: float = 0.0
    supply_s: float | None = None
    """Seconds between two samples that the loader of one training process delivers, whatever the step takes; None in
    records without rates. Where it is known, `compute_s` and `optimizer_s` are of steps that did not wait."""
    step_error: float | None = None
    """Standard error of the step's own time over its value, inside this run; None: that of `samples_per_s`."""
    supply_error: float = 0.0
    """Standard error of it over its value, inside this run."""
    fetch_cpu_s: float | None = None
    """CPU seconds of loading one sample; None if they were not counted."""
    loaded_batches: int = 0
    """What the loader has loaded, to count the slow ones among them."""
    slow_batches: int = 0
    slow_times: float = 1.0
    """What slow ones take, over what the others do."""
    side: str | None = None
    """The one that was measured alone, `step` or `loader`; None: both, in a whole trial."""
    first_wait_s: float = 0.0
    """The part of `first_step_s` that it waited for data."""
    runs: int = 1
    """How many are in these figures."""
    memory_bytes: int | None = None
    """What a memory limit counts: reserved on an accelerator, resident on a CPU. Also of a trial that ran out of it."""

    @property
    def has_figure(self) -> bool:
        return self.samples_per_s is not None

    @property
    def slow(self) -> SlowBatches:
        return SlowBatches(batches=self.loaded_batches, slow=self.slow_batches, times=self.slow_times)

    @property
    def has_step(self) -> bool:
        """Whether it tells how long the step takes."""
        return self.has_figure or self.step_error is not None

    @property
    def has_loading(self) -> bool:
        """Whether it tells how long loading takes."""
        return self.has_figure or self.supply_s is not None

    @property
    def is_oom(self) -> bool:
        return self.status == TrialStatus.OOM

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return cls(**values)


@once_for_each
def observe(result: TrialResult) -> Observation:
    """What `result` tells: by its rates if it has any, else over the undisturbed blocks."""
    outside_s = max(result.wall_s - result.training_s, 0.0)
    first_step_s = result.warm_up.first_step_s if result.warm_up else None
    memory = result.memory if result.side != "loader" else None
    used = None if memory is None else memory.reserved_bytes or memory.resident_bytes
    plain = Observation(
        status=str(result.status),
        wall_s=result.wall_s,
        overhead_s=outside_s,
        first_step_s=first_step_s,
        first_wait_s=result.warm_up.first_wait_s if result.warm_up else 0.0,
        memory_bytes=used,
        side=result.side,
    )
    rate = result.side_rate
    if result.side == "loader":
        return _with_loading(plain, result.config, rate.per_s, rate.error, rate) if rate else plain
    blocks = undisturbed(result.blocks)
    if result.status not in (TrialStatus.OK, TrialStatus.PRUNED) or not blocks:
        return plain
    steps = sum(block.steps for block in blocks)

    def per_step_s(*phases: StepPhase) -> float:
        return math.fsum(block.phases.get(phase, 0.0) for block in blocks for phase in phases) / steps

    step_s = math.fsum(block.seconds for block in blocks) / steps
    parts_s: dict[str, Any] = {
        "data_wait_s": per_step_s("data_wait"),
        "compute_s": per_step_s("forward_backward", "copy"),
        "optimizer_s": per_step_s("optimizer"),
    }
    whole_s = math.fsum(parts_s.values())
    if whole_s <= 0:  # a backend that times no phases
        parts_s, whole_s = parts_s | {"compute_s": step_s}, step_s
    # Phases cover the host's clock or the device's, blocks the host's: what is modelled has to add up to the latter.
    scaled: dict[str, Any] = {name: seconds * step_s / whole_s for name, seconds in parts_s.items()}
    error = relative_standard_error(blocks)
    figures: dict[str, Any] = {"samples_per_s": throughput(blocks), "relative_error": min(error, _LARGEST_ERROR)}
    if result.side == "step":
        return _with_step(replace(plain, **scaled), result.config, rate.per_s, rate.error) if rate else plain
    seen = replace(plain, **figures, **scaled)
    return seen if result.rates is None else _by_rates(seen, result.config, result.rates)


def _by_rates(seen: Observation, config: TrainConfig, rates: Rates) -> Observation:
    """`seen` with the two sides as they were measured separately."""
    step = _with_step(seen, config, rates.demand_per_s, rates.demand_error)
    both = _with_loading(step, config, rates.supply_per_s, rates.supply_error, rates)
    wait_s = config.effective_batch_size * (1 / rates.sustained_per_s - 1 / rates.demand_per_s)
    error = min(rates.sustained_error, _LARGEST_ERROR)
    return replace(both, samples_per_s=rates.sustained_per_s, relative_error=error, data_wait_s=max(wait_s, 0.0))


def _with_step(seen: Observation, config: TrainConfig, per_s: float, error: float) -> Observation:
    """`seen` with a step that takes so many samples per second while it does not wait; where its time went, the phases
    of `seen` say."""
    demand_s, busy_s = config.effective_batch_size / per_s, seen.compute_s + seen.optimizer_s
    scale = demand_s / busy_s if busy_s > 0 else 0.0
    return replace(
        seen,
        step_error=min(error, _LARGEST_ERROR),
        compute_s=seen.compute_s * scale if scale else demand_s,
        optimizer_s=seen.optimizer_s * scale,
    )


def _with_loading(
    seen: Observation, config: TrainConfig, per_s: float, error: float, loaded: Rates | SideRate
) -> Observation:
    slow, fetch_cpu_s = loaded.slow_batches, loaded.fetch_cpu_s
    return replace(
        seen,
        supply_s=config.world_size / per_s,
        supply_error=error,
        loaded_batches=slow.batches,
        slow_batches=slow.slow,
        slow_times=slow.times,
        fetch_cpu_s=None if fetch_cpu_s is None else fetch_cpu_s / config.micro_batch_size,
    )
