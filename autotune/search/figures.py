"""From trials to the figures that a study states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from autotune.config import TrainConfig
from autotune.records import Block, Measurement, StepPhase, TrialRecord, TrialRequest, TrialResult, TrialStatus
from autotune.spec import MEASURES, knob_values
from autotune.stats import Estimate, relative_standard_error, throughput, throughput_interval, undisturbed

_WITH_FIGURES = (TrialStatus.OK, TrialStatus.PRUNED)


def is_ok(record: TrialRecord) -> bool:
    """Whether the trial came to a figure; one that was stopped early has a rougher one."""
    return has_figure(record.result)


def has_figure(result: TrialResult) -> bool:
    return result.status in _WITH_FIGURES and bool(result.blocks)


def samples_per_s(run: TrialRecord | TrialResult) -> float:
    """Over the blocks that nothing disturbed."""
    result = run.result if isinstance(run, TrialRecord) else run
    return throughput(undisturbed(result.blocks))


def relative_error(result: TrialResult) -> float:
    """Standard error of `samples_per_s` over its value, from the spread inside the run; infinite where none shows."""
    return result.rates.sustained_error if result.rates else relative_standard_error(undisturbed(result.blocks))


def measurement_of(result: TrialResult) -> Measurement:
    """What one run measured; its interval covers the spread inside the run only."""
    blocks = undisturbed(result.blocks)
    return measurement_of_runs([result], Estimate(throughput(blocks), throughput_interval(blocks)))


def measurement_of_runs(results: Sequence[TrialResult], estimate: Estimate) -> Measurement:
    """What several runs of one configuration measured together; `estimate` is their common throughput."""
    blocks = [block for result in results for block in undisturbed(result.blocks)]
    steps = sum(block.steps for block in blocks)
    seconds = math.fsum(block.seconds for block in blocks)
    interval = estimate.interval
    return Measurement(
        samples_per_s=estimate.value,
        samples_per_s_ci95=(interval.low, interval.high) if interval else None,
        step_time_s=seconds / steps,
        data_wait_fraction=_fraction(blocks, "data_wait"),
        copy_fraction=_fraction(blocks, "copy"),
        forward_backward_fraction=_fraction(blocks, "forward_backward"),
        optimizer_fraction=_fraction(blocks, "optimizer"),
        peak_memory_bytes=max(result.memory.peak_bytes if result.memory else 0 for result in results),
        energy_j_per_sample=_energy_j_per_sample(blocks),
        steps=steps,
        disturbed_blocks=sum(bool(block.disturbances) for result in results for block in result.blocks),
    )


def figures_of(config: TrainConfig, results: Sequence[TrialResult]) -> dict[str, Any]:
    """What constraints may ask of `config`: its knobs, and what these runs of it measured, by name.

    The largest of first steps and of peaks: a limit has to hold in every run. Needs runs with timed blocks.
    """
    blocks = [block for result in results for block in undisturbed(result.blocks)]
    measured = measurement_of_runs(results, Estimate(throughput(blocks), None)).model_dump(include=set(MEASURES))
    first_steps = [result.warm_up.first_step_s for result in results if result.warm_up]
    return {**knob_values(config), **measured, "first_step_s": max(first_steps, default=None)}


def confirming_request(config: TrainConfig, seed: int, limit_s: float, known: float = 0.01) -> TrialRequest:
    """A run whose figure counts: measured until it is known to 1 % or better, instead of the search's 2 %."""
    return TrialRequest(config=config, seed=seed, time_limit_s=limit_s, min_blocks=4, target_relative_error=known)


def bottleneck(figures: Measurement) -> str:
    """The phase that takes most of a step, in words: `loader-bound: 61 % of the step waits for data`."""
    phases = {
        "loader-bound: {} of the step waits for data": figures.data_wait_fraction,
        "copy-bound: {} of the step copies batches to the device": figures.copy_fraction,
        "compute-bound: {} of the step is forward and backward": figures.forward_backward_fraction,
        "optimizer-bound: {} of the step is the optimizer's": figures.optimizer_fraction,
    }
    sentence = max(phases, key=lambda sentence: phases[sentence])
    return sentence.format(f"{100 * phases[sentence]:.0f} %")


def _fraction(blocks: Sequence[Block], phase: StepPhase) -> float:
    whole = math.fsum(seconds for block in blocks for seconds in block.phases.values())
    return math.fsum(block.phases.get(phase, 0.0) for block in blocks) / whole if whole else 0.0


def _energy_j_per_sample(blocks: Sequence[Block]) -> float | None:
    counted = [(block.machine.energy_j, block.samples) for block in blocks if block.machine]
    joules = [energy for energy, _ in counted if energy is not None]
    if not joules or len(joules) < len(blocks):
        return None
    return math.fsum(joules) / sum(samples for _, samples in counted)
