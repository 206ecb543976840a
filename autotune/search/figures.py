"""From trials to the figures that a study states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from autotune.config import TrainConfig
from autotune.records import Block, Measurement, StepPhase, TrialRecord, TrialRequest, TrialResult, TrialStatus
from autotune.search.bottleneck import figures_of_rates
from autotune.spec import MEASURES, knob_values
from autotune.stats import Estimate, undisturbed
from autotune.stats.sustained import sustained_error, sustained_interval, sustained_per_s

_WITH_FIGURES = (TrialStatus.OK, TrialStatus.PRUNED)


def is_ok(record: TrialRecord) -> bool:
    """Whether the trial was measured; one that was stopped early is measured less precisely."""
    return has_figure(record.result)


def has_figure(result: TrialResult) -> bool:
    """One side alone says nothing of what a training run gets."""
    return result.side is None and result.status in _WITH_FIGURES and bool(result.blocks)


def has_failed(record: TrialRecord) -> bool:
    """Whether it has no measurement: no throughput, or for a run of one side no rate."""
    return record.result.side_rate is None if record.result.side else not is_ok(record)


def samples_per_s(run: TrialRecord | TrialResult) -> float:
    """What the run says that a training run of hours gets."""
    return sustained_per_s(run.result if isinstance(run, TrialRecord) else run)


def relative_error(result: TrialResult) -> float:
    """Standard error of `samples_per_s` over its value, from the spread inside the run; infinite where none shows."""
    return sustained_error(result)


def measurement_of(result: TrialResult) -> Measurement:
    """What one run measured; its interval covers the spread inside the run only."""
    return measurement_of_runs([result], Estimate(sustained_per_s(result), sustained_interval(result)))


def measurement_of_runs(results: Sequence[TrialResult], estimate: Estimate) -> Measurement:
    """What several runs of one configuration measured together; `estimate` is their common throughput.

    The fractions are of the time that the steps take in the long run: what the queue had saved in the blocks, or an
    epoch's edge adds to them, is waiting for data.
    """
    blocks = [block for result in results for block in undisturbed(result.blocks)]
    steps = sum(block.steps for block in blocks)
    seconds = math.fsum(map(_sustained_s, results))
    phases = _phases(blocks, seconds)
    interval = estimate.interval
    return Measurement(
        samples_per_s=estimate.value,
        samples_per_s_ci95=(interval.low, interval.high) if interval else None,
        step_time_s=seconds / steps,
        data_wait_fraction=phases.get("data_wait", 0.0),
        copy_fraction=phases.get("copy", 0.0),
        forward_backward_fraction=phases.get("forward_backward", 0.0),
        optimizer_fraction=phases.get("optimizer", 0.0),
        peak_memory_bytes=_peak_memory_bytes(results),
        energy_j_per_sample=_energy_j_per_sample(blocks),
        steps=steps,
        disturbed_blocks=sum(bool(block.disturbances) for result in results for block in result.blocks),
        **figures_of_rates(results),
    )


def figures_of(config: TrainConfig, results: Sequence[TrialResult]) -> dict[str, Any]:
    """What constraints may ask of `config`: its knobs, and what these runs of it measured, by name.

    The largest of first steps and of peaks: a limit has to hold in every run. Needs runs with timed blocks.
    """
    samples = sum(block.samples for result in results for block in undisturbed(result.blocks))
    rate = samples / math.fsum(map(_sustained_s, results))
    measured = measurement_of_runs(results, Estimate(rate, None)).model_dump(include=set(MEASURES))
    first_steps = [result.warm_up.first_step_s for result in results if result.warm_up]
    return {**knob_values(config), **measured, "first_step_s": max(first_steps, default=None)}


def confirming_request(
    config: TrainConfig, seed: int, limit_s: float, known: float = 0.01, **known_of_data: Any
) -> TrialRequest:
    """A run whose figure counts: measured until it is known to 1 % or better, instead of the search's 2 %.
    `known_of_data`: what earlier runs have seen of it, as fields of the request."""
    return TrialRequest(
        config=config,
        seed=seed,
        time_limit_s=limit_s,
        min_blocks=4,
        target_relative_error=known,
        **known_of_data,
    )


def _peak_memory_bytes(results: Sequence[TrialResult]) -> int:
    """By runs in new processes, where there are any: on a CPU, what earlier runs leave behind adds to the others'."""
    first = [result for result in results if result.runs_before == 0]
    return max(result.memory.peak_bytes if result.memory else 0 for result in first or results)


def _sustained_s(result: TrialResult) -> float:
    """Seconds that the timed steps of a run take in the long run."""
    return sum(block.samples for block in undisturbed(result.blocks)) / sustained_per_s(result)


def _phases(blocks: Sequence[Block], seconds: float) -> dict[StepPhase, float]:
    """Fractions of `seconds`, in which the steps of `blocks` are done in the long run."""
    phases: dict[StepPhase, float] = {}
    for block in blocks:
        for phase, phase_s in block.phases.items():
            phases[phase] = phases.get(phase, 0.0) + phase_s
    if not phases:
        return {}
    beyond_s = seconds - math.fsum(block.seconds for block in blocks)
    phases["data_wait"] = max(phases.get("data_wait", 0.0) + beyond_s, 0.0)
    whole_s = math.fsum(phases.values())
    return {phase: phase_s / whole_s for phase, phase_s in phases.items()} if whole_s > 0 else {}


def _energy_j_per_sample(blocks: Sequence[Block]) -> float | None:
    counted = [(block.machine.energy_j, block.samples) for block in blocks if block.machine]
    joules = [energy for energy, _ in counted if energy is not None]
    if not joules or len(joules) < len(blocks):
        return None
    return math.fsum(joules) / sum(samples for _, samples in counted)
