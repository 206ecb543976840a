"""Gates on the numbers themselves: what is not finite, and what low precision brings about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from autotune.records import Check, LargestActivation, TrialResult, TrialStatus

FP16_MAX = 65_504.0
T = TypeVar("T")
_LOWEST_SCALE = 1.0


def finite_loss(runs: Sequence[TrialResult]) -> Check:
    """Every loss of every optimizer step is finite. Value: how many were not.

    Megatron-LM ends a run at the first such loss (`--check-for-nan-in-loss-and-grad`).
    """
    losses = [loss for run in runs if run.steps for loss in run.steps.losses]
    # A run that diverged ended with the loss that it could not report.
    bad = sum(not math.isfinite(loss) for loss in losses) + sum(run.status is TrialStatus.DIVERGED for run in runs)
    return _none_of("finite_loss", bad, len(losses))


def finite_gradients(runs: Sequence[TrialResult]) -> Check:
    """Every unscaled gradient that reached the optimizer is finite. Value: how many were not.

    A step that the GradScaler skipped has done no harm; how often that may happen is `skipped_steps`.
    """
    norms = [
        norm
        for run in runs
        if run.steps
        for norm, skipped in zip(run.steps.gradient_norms, run.steps.skipped, strict=False)
        if not skipped
    ]
    bad = sum(not math.isfinite(norm) for norm in norms)
    return _none_of("finite_gradients", bad, len(norms))


def skipped_steps(runs: Sequence[TrialResult], limit: float) -> Check:
    """fp16: share of optimizer steps that the GradScaler skipped, once it had found its scale.

    It starts at 65536 and halves at each overflow (PyTorch's GradScaler), so skips before the first real step are
    its calibration.
    """
    after = [skip for run in runs if run.steps for skip in _after_calibration(run.steps.skipped, run.steps.skipped)]
    share = sum(after) / len(after) if after else 1.0
    return Check(name="skipped_steps", passed=share <= limit, value=share, limit=limit, detail=f"{len(after)} steps")


def loss_scale(runs: Sequence[TrialResult]) -> Check:
    """fp16: the lowest scale that the GradScaler came down to after its calibration.

    Below 1 it no longer lifts small gradients but pushes them down: values near the end of fp16's range are the cause
    (PyTorch's AMP notes). fairseq stops at 1e-4.
    """
    scales = [
        scale for run in runs if run.steps for scale in _after_calibration(run.steps.loss_scales, run.steps.skipped)
    ]
    lowest = min(scales, default=0.0)
    return Check(name="loss_scale", passed=lowest >= _LOWEST_SCALE, value=lowest, limit=_LOWEST_SCALE)


def fp16_range(probe: LargestActivation | None, reference: LargestActivation | None) -> Check:
    """fp16: the largest activation, in fp32 arithmetic, that a module puts out; fp16 ends at 65,504.

    The reference run says what the value would be; the probe, where it says infinite, that it has happened.
    """
    seen = [activation for activation in (probe, reference) if activation is not None]
    worst = max(seen, key=lambda activation: _size(activation.value), default=None)
    if worst is None:
        return Check(
            name="fp16_range",
            passed=True,
            value=0.0,
            limit=FP16_MAX,
            detail="no module could be watched",
            conclusive=False,
        )
    return Check(
        name="fp16_range",
        passed=_size(worst.value) <= FP16_MAX,
        value=worst.value,
        limit=FP16_MAX,
        detail=f"in module {worst.module or 'the model itself'}",
    )


def _none_of(name: str, bad: int, steps: int) -> Check:
    detail = f"{steps} optimizer steps"
    return Check(name=name, passed=bad == 0, value=bad, limit=0, detail=detail, conclusive=steps + bad > 0)


def _size(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _after_calibration(values: Sequence[T], skipped: Sequence[bool]) -> Sequence[T]:
    first = next((index for index, skip in enumerate(skipped) if not skip), len(skipped))
    return values[first:]
