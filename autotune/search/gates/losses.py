"""Gates on the loss. Trajectories are chaotic: rounding alone takes two runs of one configuration apart, so each limit
comes from runs that differ harmlessly, and a gate that cannot tell says so instead of refusing."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotune.records import Check, TrialResult
from autotune.search.gates.trajectory import Trajectory
from autotune.stats import student_t, written

_WINDOWS = 4
_STEPS_PER_WINDOW = 3
"""At least; a run too short for four windows has fewer."""
_FEWEST_WINDOWS = 2
_BAND_CONFIDENCE = 0.98
"""Two-sided: one sound run in a hundred exceeds the band. Measured on chaotic trajectories by
`tests/search/gates/test_losses.py`, on real ones by `benchmarks/false_alarms.py`."""
_ENDLESS = 100.0
_NEGLIGIBLE = 0.1
"""Share of the first window's loss: below it, relative differences between losses mean nothing."""
_TOO_WIDE = 1.0
"""A band that lets a loss be twice as high says little."""
_MOST_RISE = 3.0
_LUCK = 2.0
"""Standard deviations between steps that an easy first batch may lie below the mean."""
_FEWEST_TO_RISE = 4
_SPIKE = 10.0
_SPIKE_MEMORY = 16


def loss_against_reference(probe: TrialResult, references: Sequence[TrialResult], tolerance: float) -> Check:
    """Largest relative excess of the mean loss, in any of up to four windows, over the mean of the reference runs.

    The references run in IEEE fp32 at the same micro-batch size and accumulation: the first from the same weights over
    the same samples with the same random numbers, the others with other seeds. The limit is where Student's
    98 % prediction interval for a new run ends, on the scale of logarithms, and `tolerance` at least: a band from
    repeated runs, as MLPerf's reference convergence points have it.
    A probe that keeps within `tolerance` of the first reference passes for sure, however wide the band.
    """
    steps = min(len(Trajectory.of(run).losses) for run in (probe, *references))
    windows = _windows_of(probe, references)
    follows = all(window.distance <= tolerance for window in windows)
    if not windows or (len(references) < 2 and not follows):
        detail = f"{steps} steps and {len(references)} reference runs are too few to judge"
        return _loss_check("loss_against_reference", 0.0, tolerance, detail, conclusive=False)
    worst = max(windows, key=lambda window: window.excess / max(tolerance, window.band))
    limit = max(tolerance, worst.band)
    detail = (
        f"loss {written(worst.loss)} against {written(worst.expected)} in window {windows.index(worst) + 1} of "
        f"{len(windows)}, {steps} steps"
    )
    blind = worst.excess <= limit and limit > _TOO_WIDE and not follows
    if blind:
        detail += f"; the reference runs differ so much that only an excess of {limit:.0%} would tell"
    return _loss_check("loss_against_reference", worst.excess, limit, detail, conclusive=not blind)


def needs_other_seeds(probe: TrialResult, reference: TrialResult, tolerance: float) -> bool:
    """Whether the loss of `probe` leaves that of the `reference` of its own seed, so that reference runs with other
    seeds have to say how far apart sound runs end up. Where it does not, or the steps are too few to judge, they would
    change nothing."""
    return any(window.distance > tolerance for window in _windows_of(probe, [reference]))


@dataclass(frozen=True, slots=True)
class _Window:
    """One window of the probe beside the references'. What is relative is so to their mean loss, or to a tenth of that
    of the first window: how far losses below it differ from each other says nothing."""

    loss: float
    expected: float
    """Mean of the references."""
    excess: float
    """Relative, over `expected` or over the reference of the same seed, whichever is the higher."""
    distance: float
    """Relative, from the reference of the same seed."""
    band: float
    """Relative: what a sound run may exceed."""


def _windows_of(probe: TrialResult, references: Sequence[TrialResult]) -> list[_Window]:
    """Over the steps that all of them have; none where those are too few. `references`: that of the same seed first."""
    ours, theirs = Trajectory.of(probe), [Trajectory.of(run) for run in references]
    end = min(trajectory.seen for trajectory in (ours, *theirs))
    count = min(min(len(trajectory.losses) for trajectory in (ours, *theirs)) // _STEPS_PER_WINDOW, _WINDOWS)
    if count < _FEWEST_WINDOWS:
        return []
    return _compare_windows(ours.windows(count, end), [run.windows(count, end) for run in theirs])


def _compare_windows(ours: Sequence[float], theirs: Sequence[Sequence[float]]) -> list[_Window]:
    """`theirs`: the windows of each reference, that of the same seed first. One reference alone has no band."""
    together = list(zip(*theirs, strict=True))
    means = [statistics.fmean(losses) for losses in together]
    scales = [max(_size(mean), _NEGLIGIBLE * abs(means[0])) for mean in means]
    several = len(theirs) > 1
    spreads = [
        statistics.stdev(losses) / scale if several else 0.0 for losses, scale in zip(together, scales, strict=True)
    ]
    pooled = math.sqrt(statistics.fmean(spread * spread for spread in spreads))
    of_a_new_run = student_t(len(theirs) - 1, _BAND_CONFIDENCE) * math.sqrt(1 + 1 / len(theirs)) if several else 0.0
    return [
        _Window(
            loss=loss,
            expected=mean,
            # What is not a number exceeds everything.
            excess=(loss - max(mean, losses[0])) / scale if math.isfinite(loss) else math.inf,
            distance=abs(loss - losses[0]) / scale,
            # Three runs know the spread in one window badly, and it grows from window to window. Losses spread by
            # factors: as far up as the same factor goes down.
            band=math.expm1(min(of_a_new_run * max(spread, pooled), _ENDLESS)),
        )
        for loss, losses, mean, scale, spread in zip(ours, together, means, scales, spreads, strict=True)
    ]


def loss_per_sample(
    runs: Mapping[int, TrialResult], baseline_runs: Mapping[int, TrialResult], tolerance: float
) -> Check:
    """For a changed effective batch size: relative excess of the mean loss over the baseline's, in the second half of
    the samples that both have seen.

    Both start from the same weights and see the same samples in the same order in each round. The limit is
    `tolerance`, or twice the spread of the baseline's own loss between rounds (other seeds) where that is wider: a
    difference that a mere seed makes says nothing about the configuration.

    It is conclusive where a configuration that learnt nothing would have failed: where the baseline's loss in the first
    quarter lies above its limit. On random labels it does not.
    """
    ours, theirs, before = [], [], []
    for number in runs.keys() & baseline_runs.keys():
        mine, base = Trajectory.of(runs[number]), Trajectory.of(baseline_runs[number])
        seen = min(mine.seen, base.seen)
        if seen:
            ours.append(mine.mean_loss(seen / 2, seen))
            theirs.append(base.mean_loss(seen / 2, seen))
            before.append(base.mean_loss(0, seen / 4))
    if not ours:
        return Check(name="loss_per_sample", passed=False, value=math.nan, limit=tolerance, detail="no common round")
    centre = statistics.fmean(theirs)
    band = 2 * statistics.stdev(theirs) / _size(centre) if len(theirs) > 1 else 0.0
    detail = f"{written(statistics.fmean(ours))} against {written(centre)} at equal samples seen, {len(ours)} rounds"
    excess, unlearnt = ((statistics.fmean(losses) - centre) / _size(centre) for losses in (ours, before))
    limit = max(tolerance, band)
    blind = excess <= limit and unlearnt <= limit
    if blind:
        detail += "; the baseline itself learns too little in them for slower learning to show"
    return _loss_check("loss_per_sample", excess, limit, detail, conclusive=not blind)


def loss_rise(run: TrialResult) -> Check:
    """Mean loss of the run's last quarter over that of its first step; 3 at the most, and more where the loss of one
    step says little: the first batch may have been an easy one.

    A learning rate far too high shows within a few steps: the loss leaps to many times its first value. It may stay
    there, or fall back to what guessing costs; so for a run that ends no lower than it began, its highest loss counts.
    An overshoot after which it learns is none of it.
    """
    trajectory = Trajectory.of(run)
    if len(trajectory.losses) < _FEWEST_TO_RISE:
        detail = f"{len(trajectory.losses)} steps are too few to judge"
        return _loss_check("loss_rise", 0.0, _MOST_RISE, detail, conclusive=False)
    first, highest = trajectory.losses[0], max(trajectory.losses)
    last = trajectory.mean_loss(trajectory.seen * 3 / 4, trajectory.seen)
    detail = f"from {written(first)} to {written(last)} in {len(trajectory.losses)} steps"
    if first <= 0:
        return _loss_check("loss_rise", 0.0, _MOST_RISE, detail, conclusive=False)
    scatter = _scatter(trajectory.losses)
    highest_limit = _MOST_RISE * math.exp(2 * _LUCK * scatter)
    if last >= first and highest / first > highest_limit:
        return _loss_check("loss_rise", highest / first, highest_limit, f"{detail}, over {written(highest)}")
    return _loss_check("loss_rise", last / first, _MOST_RISE * math.exp(_LUCK * scatter), detail)


def _scatter(losses: Sequence[float]) -> float:
    """Standard deviation of the logarithm between neighbouring steps: what a batch's luck makes, and no trend."""
    late = [loss for loss in losses[len(losses) // 2 :] if loss > 0]
    leaps = [math.log(after / before) for before, after in itertools.pairwise(late)]
    return math.sqrt(statistics.fmean(leap**2 for leap in leaps) / 2) if leaps else 0.0


def loss_spikes(runs: Sequence[TrialResult]) -> Check:
    """Largest loss over the median of the 16 steps before it; a warning above 10: Megatron-LM counts such spikes, and
    trains on."""
    spikes = [spike for run in runs for spike in _spikes(Trajectory.of(run).losses)]
    largest = max(spikes, default=0.0)
    return Check(
        name="loss_spikes",
        passed=largest <= _SPIKE,
        value=largest,
        limit=_SPIKE,
        warns_only=True,
        conclusive=bool(spikes),
    )


def _spikes(losses: Sequence[float]) -> list[float]:
    return [
        losses[index] / before
        for index in range(4, len(losses))
        if (before := statistics.median(losses[max(0, index - _SPIKE_MEMORY) : index])) > 0
    ]


def _size(loss: float) -> float:
    return max(abs(loss), 1e-12)


def _loss_check(name: str, value: float, limit: float, detail: str, *, conclusive: bool = True) -> Check:
    # A value that is not a number fails: it compares with nothing.
    return Check(name=name, passed=value <= limit, value=value, limit=limit, detail=detail, conclusive=conclusive)
