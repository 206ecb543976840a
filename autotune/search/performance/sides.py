"""Whether one side of a configuration is worth measuring before a whole trial, and which.

A whole trial costs its start, a model, a loader that has to be filled, and seconds of both together. What it tells is
mostly what each side does, and many configurations share a side: a space of so many steps times so many loaders is
learnt as a sum. So sides are measured while they are expected to show better combinations, and the best combination is
then tried as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from autotune.config import TrainConfig
from autotune.records import Side
from autotune.search.performance.model import PerformanceModel
from autotune.search.performance.process import Array
from autotune.search.performance.proposal import Proposer, log_expected_improvement
from autotune.search.performance.remaining import left_to_gain
from autotune.search.performance.repeats import Run
from autotune.search.performance.side_costs import SideCosts

_HARDLY = 0.05
"""Share of a CPU's cores that loading keeps busy, up to which training does not miss them."""
_LOADING_ERROR = 0.05
"""Relative, between two runs of one loader."""
_ENOUGH = math.log(1.02)
"""What is left to gain, on average, over the best combination: with less, it is tried as a whole."""
_MOST_TO_WEIGH = 128
_RIVALS = 16
"""Number of the best combinations that the best of all is compared with."""
_OWN = 0.01
"""Standard deviation of what neither side explains of a configuration."""
_LEAST_DOUBT = 1e-6
_SIDES: tuple[Side, Side] = ("step", "loader")


class Aside(NamedTuple):
    """A measurement of one side."""

    config: TrainConfig
    side: Side


def propose_side(
    proposer: Proposer,
    model: PerformanceModel,
    *,
    tried: Sequence[TrainConfig],
    taken: set[TrainConfig],
    trials: Sequence[Run],
    sides: Sequence[Run],
    seconds_left: float,
    seed: int,
) -> Aside | None:
    """The side that tells most for the seconds it takes; None where a whole trial is next: it tells more, or the best
    combination is known well enough, or the two sides depend on each other, or no trial has told them apart.

    `tried`, `taken`: as `Proposer.propose` has them. `trials`: whole ones; `sides`: runs of one side, so far. What a
    measurement is worth is the expected improvement by what it tells of its configuration (the knowledge gradient, but
    for what it tells of others): Frazier, Powell & Dayanik, "The Knowledge-Gradient Policy for Correlated Normal
    Beliefs" (2009).
    """
    told_apart = any(seen.supply_s is not None for _, seen in trials)
    if not told_apart or model.encoding.world_size > 1:
        return None
    candidates = proposer.worth_trying(model, tried, taken)
    if not candidates:
        return None
    every = [*tried, *candidates]
    encoded = model.encoding.encode(every)
    if not are_independent(model, float(model.demand_per_s(encoded).max())):
        return None
    means = model.predict(encoded).mean
    rivals = [every[place] for place in np.argsort(-means)[:_RIVALS]]
    done = {_alike(config, seen.side) for config, seen in sides}
    if rivals[0] in tried and any(seen.slow_batches for _, seen in trials):
        drained = _of_slow_batches(rivals[0], trials[0][0].micro_batch_size, every)
        undrained = [config for config in drained if _alike(config, "loader") not in done]
        if undrained:
            return Aside(undrained[0], "loader")
    candidates = _promising(model, candidates, float(means.max()))
    others = [config for config in candidates if config != rivals[0]]
    if left_to_gain(model, rivals[:1], others, seed) < _ENOUGH:
        return None
    costs = SideCosts(model, trials, sides, candidates)
    seconds = (costs.whole_s, costs.step_s, costs.loader_s)
    kinds = [worth - np.log(each_s) for worth, each_s in zip(_worth(model, candidates, rivals), seconds, strict=True)]
    for kind, side in enumerate(_SIDES, start=1):
        new = np.array([_alike(config, side) not in done for config in candidates])
        may = new & (seconds[kind] + costs.whole_s <= seconds_left)  # the combination has to be tried as well
        kinds[kind] = np.where(may, kinds[kind], -math.inf)
    kind, row = divmod(int(np.argmax(kinds)), len(candidates))
    return Aside(candidates[row], _SIDES[kind - 1]) if kind else None


def _of_slow_batches(best: TrainConfig, size: int, every: Sequence[TrainConfig]) -> list[TrainConfig]:
    """Whose loaders are drained where some batches take much longer: of the best combination, and of the baseline's
    size. How often slow ones come limits what is known of both figures, and no trial sees as many in a second."""
    loader = best.num_workers, best.prefetch_factor
    others = (
        config
        for config in every
        if config.micro_batch_size == size and (config.num_workers, config.prefetch_factor) == loader
    )
    return [best, *list(others)[:1]]


def _promising(model: PerformanceModel, candidates: Sequence[TrainConfig], best: float) -> list[TrainConfig]:
    predicted = model.predict(model.encoding.encode(candidates))
    promise = log_expected_improvement(predicted.mean - best, predicted.doubt)
    return [candidates[place] for place in np.argsort(-promise)[:_MOST_TO_WEIGH]]


def _worth(model: PerformanceModel, candidates: Sequence[TrainConfig], rivals: Sequence[TrainConfig]) -> list[Array]:
    """ln of what measuring each candidate as a whole, its step or its loader is expected to gain: by how far it may
    move the candidate against the best of `rivals`, or that one against the others. What they have in common, such as a
    loader, moves both, and says nothing of which is better."""
    these, those = model.encoding.encode(candidates), model.encoding.encode(rivals)
    gains = model.predict(those).mean[None, :] - model.predict(these).mean[:, None]
    top = np.array([config == rivals[0] for config in candidates])
    against = np.where(top[:, None], np.arange(len(rivals)) > 0, np.arange(len(rivals)) == 0)
    doubts, shared = model.doubts(these), model.covariance_of_sides(these, those)
    own = [doubt**2 for doubt in doubts]
    variances = [own[0] + own[1] + own[2] + _OWN**2, *own[:2]]
    found = []
    errors = (model.noise, model.noise, _LOADING_ERROR)
    for variance, common, error in zip(
        variances, [shared[0] + shared[1] + shared[2], *shared[:2]], errors, strict=True
    ):
        moves = np.abs(variance[:, None] - common) / np.sqrt(variance + error**2)[:, None]
        value = log_expected_improvement(-np.abs(gains), np.maximum(moves, _LEAST_DOUBT))
        found.append(np.where(against, value, -math.inf).max(axis=1))
    return found


def _alike(config: TrainConfig, side: str | None) -> tuple[object, ...]:
    """What all configurations with the same step, or the same loader, have in common."""
    if side == "loader":
        return side, config.micro_batch_size, config.num_workers, config.prefetch_factor, config.custom
    return side, config.with_values({"num_workers": 0, "prefetch_factor": None})


def are_independent(model: PerformanceModel, samples_per_s: float) -> bool:
    """Whether each side alone does what it does next to the other. True if an accelerator trains, or if loading as many
    samples a second as the fastest step takes hardly needs the CPU."""
    loading = model.loading
    busy_cores = loading.alone_s * loading.computing * samples_per_s
    return loading.overlaps or (loading.counted and busy_cores <= _HARDLY * loading.cores)
