"""Gates on the loss. Trajectories are chaotic: rounding alone takes two runs of one configuration apart, so each limit
comes from runs that differ harmlessly, and a gate that cannot tell says so instead of refusing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from autotune.records import Check, TrialResult
from autotune.search.gates.trajectory import Trajectory

_WINDOWS = 4
_STEPS_PER_WINDOW = 3
"""At least; a run too short for four windows has fewer."""
_FEWEST_WINDOWS = 2
_BAND_WIDTHS = 6.0
"""Standard deviations of the reference runs, pooled over the windows. `benchmarks/false_alarms.py` measures what it
lets pass and what it refuses."""
_TOO_WIDE = 0.5
"""A band that lets a loss be half as high again says little."""
_MOST_RISE = 3.0
_FEWEST_TO_RISE = 4
_SPIKE = 10.0
_SPIKE_MEMORY = 16


def loss_against_reference(probe: TrialResult, references: Sequence[TrialResult], tolerance: float) -> Check:
    """Largest relative excess of the mean loss in any of up to four windows over the mean of the reference runs.

    The references run in IEEE fp32 at the same micro-batch size and accumulation: one from the same weights over the
    same samples with the same random numbers, the others with other seeds. The limit is six standard deviations
    between them (pooled over the windows, widened by √(1 + 1/n) for a new run), and `tolerance` at least. The excess is
    over the mean of all or over the reference of its own seed, whichever is the higher: seeds alone set these apart.
    MLPerf's reference convergence points compare with bands from repeated runs in the same spirit.
    """
    ours, theirs = Trajectory.of(probe), [Trajectory.of(run) for run in references]
    steps = min(len(trajectory.losses) for trajectory in (ours, *theirs))
    end = min(trajectory.seen for trajectory in (ours, *theirs))
    count = min(steps // _STEPS_PER_WINDOW, _WINDOWS)
    if count < _FEWEST_WINDOWS or len(theirs) < 2:
        detail = f"{steps} steps and {len(theirs)} reference runs are too few to tell"
        return _loss_check("loss_against_reference", 0.0, tolerance, detail, conclusive=False)
    own = ours.windows(count, end)
    bands = list(zip(*(trajectory.windows(count, end) for trajectory in theirs), strict=True))
    limit = max(tolerance, _BAND_WIDTHS * _pooled_spread(bands) * math.sqrt(1 + 1 / len(theirs)))
    excesses = [
        (loss - max(statistics.fmean(band), band[0])) / _size(statistics.fmean(band))
        for loss, band in zip(own, bands, strict=True)
    ]
    worst = max(range(count), key=lambda window: excesses[window])
    against = f"{own[worst]:.4g} against {statistics.fmean(bands[worst]):.4g}"
    detail = f"loss {against} in window {worst + 1} of {count}, {steps} steps"
    wide = limit > _TOO_WIDE
    if wide:
        detail += f"; reference runs themselves differ so much that only an excess of {limit:.0%} would tell"
    return _loss_check("loss_against_reference", excesses[worst], limit, detail, conclusive=not wide)


def loss_per_sample(
    runs: Mapping[int, TrialResult], baseline_runs: Mapping[int, TrialResult], tolerance: float
) -> Check:
    """For a changed effective batch size: relative excess of the mean loss over the baseline's, in the second half of
    the samples that both have seen.

    Both start from the same weights and see the same samples in the same order in each round. The limit is
    `tolerance`, or twice the spread of the baseline's own loss between rounds (other seeds) where that is wider: a
    difference that a mere seed makes says nothing about the configuration.
    """
    ours, theirs = [], []
    for number in runs.keys() & baseline_runs.keys():
        mine, base = Trajectory.of(runs[number]), Trajectory.of(baseline_runs[number])
        seen = min(mine.seen, base.seen)
        if seen:
            ours.append(mine.mean_loss(seen / 2, seen))
            theirs.append(base.mean_loss(seen / 2, seen))
    if not ours:
        return Check(name="loss_per_sample", passed=False, value=math.nan, limit=tolerance, detail="no common round")
    centre = statistics.fmean(theirs)
    band = 2 * statistics.stdev(theirs) / _size(centre) if len(theirs) > 1 else 0.0
    detail = f"{statistics.fmean(ours):.4g} against {centre:.4g} at equal samples seen, {len(ours)} rounds"
    excess = (statistics.fmean(ours) - centre) / _size(centre)
    return _loss_check("loss_per_sample", excess, max(tolerance, band), detail)


def loss_rise(run: TrialResult) -> Check:
    """Mean loss of the run's last quarter over that of its first step; 3 at the most.

    A learning rate far too high shows within a few steps: the loss leaps to many times its first value and stays there.
    An overshoot that comes down again is none of it.
    """
    trajectory = Trajectory.of(run)
    if len(trajectory.losses) < _FEWEST_TO_RISE:
        detail = f"{len(trajectory.losses)} steps are too few to tell"
        return _loss_check("loss_rise", 0.0, _MOST_RISE, detail, conclusive=False)
    first = trajectory.losses[0]
    last = trajectory.mean_loss(trajectory.seen * 3 / 4, trajectory.seen)
    rise = last / first if first > 0 else 0.0
    return _loss_check(
        "loss_rise", rise, _MOST_RISE, f"from {first:.4g} to {last:.4g} in {len(trajectory.losses)} steps"
    )


def loss_spikes(runs: Sequence[TrialResult]) -> Check:
    """Largest loss over the median of the 16 steps before it; a warning above 10: Megatron-LM counts such spikes, and
    trains on."""
    largest = max((_largest_spike(Trajectory.of(run).losses) for run in runs), default=0.0)
    return Check(name="loss_spikes", passed=largest <= _SPIKE, value=largest, limit=_SPIKE, warns_only=True)


def _largest_spike(losses: Sequence[float]) -> float:
    spikes = [
        losses[index] / before
        for index in range(4, len(losses))
        if (before := statistics.median(losses[max(0, index - _SPIKE_MEMORY) : index])) > 0
    ]
    return max(spikes, default=0.0)


def _pooled_spread(bands: Sequence[Sequence[float]]) -> float:
    """Root mean square, over the windows, of the relative standard deviation between reference runs."""
    return math.sqrt(statistics.fmean((statistics.stdev(band) / _size(statistics.fmean(band))) ** 2 for band in bands))


def _size(loss: float) -> float:
    return max(abs(loss), 1e-12)


def _loss_check(name: str, value: float, limit: float, detail: str, *, conclusive: bool = True) -> Check:
    # A value that is not a number fails: it compares with nothing.
    return Check(name=name, passed=value <= limit, value=value, limit=limit, detail=detail, conclusive=conclusive)
