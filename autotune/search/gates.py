"""The stability gates: each looks at runs that were measured anyway, and says what it saw and what the limit was.

`passed` means that no instability was seen in the steps that were run; no gate can promise more.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from autotune.records import Check, Facts, OptimizerSteps, TrialResult
from autotune.spec.model import StabilitySpec


def gate_all(
    runs: Mapping[int, TrialResult], baseline_runs: Mapping[int, TrialResult], spec: StabilitySpec, facts: Facts
) -> list[Check]:
    """All gates over the rounds of the confirmation: round → run, for a configuration and for the baseline."""
    results = list(runs.values())
    checks = [finite_loss(results), memory_headroom(results, facts, spec.memory_headroom)]
    if any(result.config.amp_dtype == "fp16" for result in results):
        checks.append(skipped_steps(results, spec.max_skipped_steps))
    if not _same_config(results, list(baseline_runs.values())):
        checks.append(loss_at_equal_samples(runs, baseline_runs, spec.loss_tolerance))
    return checks


def finite_loss(runs: Sequence[TrialResult]) -> Check:
    """Every loss of every optimizer step is finite. Value: how many were not."""
    losses = [loss for run in runs if run.steps for loss in run.steps.losses]
    bad = sum(not math.isfinite(loss) for loss in losses)
    return Check(name="finite_loss", passed=bad == 0, value=bad, limit=0, detail=f"{len(losses)} optimizer steps")


def skipped_steps(runs: Sequence[TrialResult], limit: float) -> Check:
    """fp16: share of optimizer steps that the GradScaler skipped, once it had found its scale.

    It starts at 65536 and halves at each overflow (PyTorch's GradScaler), so skips before the first real step are
    its calibration.
    """
    after = [skip for run in runs if run.steps for skip in _after_calibration(run.steps.skipped)]
    share = sum(after) / len(after) if after else 1.0
    return Check(name="skipped_steps", passed=share <= limit, value=share, limit=limit, detail=f"{len(after)} steps")


def _after_calibration(skipped: Sequence[bool]) -> Sequence[bool]:
    first = next((index for index, skip in enumerate(skipped) if not skip), len(skipped))
    return skipped[first:]


def memory_headroom(runs: Sequence[TrialResult], facts: Facts, limit: float) -> Check:
    """Share of the device's memory (of the host's, on a CPU) that stayed free at the peak; may not be below the limit.

    On an accelerator this counts what torch's allocator reserved, which is what the next process finds missing.
    """
    seen = [run.memory for run in runs if run.memory]
    on_device = [memory.reserved_bytes for memory in seen if memory.reserved_bytes is not None]
    total = facts.device.total_memory_bytes if on_device else facts.host.memory_bytes
    used = max(on_device or [memory.resident_bytes for memory in seen], default=total)
    free = 1 - used / total
    return Check(name="memory_headroom", passed=free >= limit, value=free, limit=limit)


def loss_at_equal_samples(
    runs: Mapping[int, TrialResult], baseline_runs: Mapping[int, TrialResult], tolerance: float
) -> Check:
    """Relative excess of the mean loss over the baseline's, in the second half of the samples that both have seen.

    Both start from the same weights and see the same samples in the same order in each round. The limit is
    `tolerance`, or twice the spread of the baseline's own loss between rounds (other seeds) where that is wider: a
    difference that a mere seed makes says nothing about the configuration.
    """
    ours, theirs = [], []
    for number in runs.keys() & baseline_runs.keys():
        mine, base = runs[number].steps, baseline_runs[number].steps
        if mine and base:
            seen = min(sum(mine.samples), sum(base.samples))
            ours.append(_mean_loss(mine, seen))
            theirs.append(_mean_loss(base, seen))
    if not ours:
        return Check(
            name="loss_at_equal_samples", passed=False, value=math.nan, limit=tolerance, detail="no common round"
        )
    centre = statistics.fmean(theirs)
    scale = max(abs(centre), 1e-12)
    band = 2 * statistics.stdev(theirs) / scale if len(theirs) > 1 else 0.0
    limit = max(tolerance, band)
    excess = (statistics.fmean(ours) - centre) / scale
    return Check(
        name="loss_at_equal_samples",
        passed=excess <= limit,
        value=excess,
        limit=limit,
        detail=f"{statistics.fmean(ours):.4g} against {centre:.4g}, {len(ours)} rounds",
    )


def _mean_loss(steps: OptimizerSteps, seen: int) -> float:
    """Mean loss per sample over samples seen/2 … seen; a step that straddles an end counts with its share."""
    total, weight, position = 0.0, 0.0, 0
    for loss, samples in zip(steps.losses, steps.samples, strict=True):
        inside = min(position + samples, seen) - max(position, seen / 2)
        position += samples
        if inside > 0:
            total += loss * inside
            weight += inside
    return total / weight


def soak(run: TrialResult | None, steps: int) -> Check:
    """The winner trained `steps` optimizer steps in one go without a fault. Value: the steps it trained."""
    done = len(run.steps.losses) if run and run.steps else 0
    missing = "the budget ended before the soak" if steps else ""
    detail = run.failure.reason if run and run.failure else "" if run else missing
    return Check(
        name="soak", passed=done >= steps and not (run and run.failure), value=done, limit=steps, detail=detail
    )


def _same_config(results: Sequence[TrialResult], others: Sequence[TrialResult]) -> bool:
    return {result.config for result in results} == {result.config for result in others}
