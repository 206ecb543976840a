"""How good a strategy is on a table: how soon it is within 2 % of the best, and how far it got over time.

Performance over time is the share of the way from what random search would have found by then to the optimum; its mean
over the budget is the score (Willemsen et al., "A Methodology for Comparing Optimization Algorithms for Auto-Tuning",
Future Generation Computer Systems 159, 2024). 1 is the optimum at once, 0 as good as random search, below 0 worse.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.bench.session import FINALISTS, Bench, Step
from autotune.records import TrialStatus

CLOSE = 0.02
_MOMENTS = 200
_LEAST_GAP = 0.005
"""Distance from the optimum: if random search comes this near, there is nothing to win."""

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One replayed search, as the scores see it."""

    strategy: str
    seed: int
    found: Array
    """found ÷ best at each of the `moments`."""
    found_over_best: float
    """At the end of the budget."""
    seconds_to_close: float
    """Trial seconds until what it has found is within 2 % of the best, and stays so; infinite: not in the budget."""
    trials_to_close: float
    trials: int
    oom_trials: int
    ask_s: float
    """Mean real seconds that choosing a configuration took."""
    controller_share: float
    """Share of one core: real seconds of asking and telling, over the seconds of the search. At 1 the controller
    keeps workers waiting."""


def moments(budget_s: float) -> Array:
    """The times at which performance is looked at: evenly spread, the first one step after the beginning."""
    return np.linspace(0, budget_s, _MOMENTS + 1)[1:]


def run_of(bench: Bench, steps: Sequence[Step], *, strategy: str, seed: int, budget_s: float) -> Run:
    """The scores' view of `steps`; what ended after the budget does not count."""
    inside = [step for step in steps if step.ended_at_s <= budget_s]
    stands = 0.0
    measured: list[tuple[float, float]] = []
    times, shares = [0.0], [0.0]
    seconds_to_close = trials_to_close = math.inf
    for number, step in enumerate(inside, start=1):
        if step.config == bench.space.baseline:
            stands = bench.worth(step.config)
        elif step.samples_per_s is not None:
            measured.append((step.samples_per_s, bench.worth(step.config)))
            measured = sorted(measured, reverse=True)[:FINALISTS]
        share = max(stands, *(worth for _, worth in measured), 0.0) / bench.best
        times.append(step.ended_at_s)
        shares.append(share)
        if share < 1 - CLOSE:  # also of one that luckier configurations have driven out of the finalists
            seconds_to_close = trials_to_close = math.inf
        elif math.isinf(seconds_to_close):
            seconds_to_close, trials_to_close = step.ended_at_s, float(number)
    places = np.searchsorted(times, moments(budget_s), side="right") - 1
    return Run(
        strategy=strategy,
        seed=seed,
        found=np.asarray(shares)[places],
        found_over_best=shares[-1],
        seconds_to_close=seconds_to_close,
        trials_to_close=trials_to_close,
        trials=len(inside),
        oom_trials=sum(step.status is TrialStatus.OOM for step in inside),
        ask_s=statistics.fmean(step.ask_s for step in steps),
        controller_share=math.fsum(step.ask_s + step.tell_s for step in steps) / steps[-1].ended_at_s,
    )


def expected_random(bench: Bench, budget_s: float) -> Array:
    """found ÷ best that random search without replacement would have reached by each moment, in expectation, at the
    mean cost of a trial; after the baseline, which every search measures first."""
    recorded = bench.table.by_config()
    costs = {config: statistics.fmean(run.wall_s for run in runs) for config, runs in recorded.items()}
    baseline = bench.space.baseline
    floor = bench.worth(baseline)
    others = np.array([max(bench.worth(config), floor) for config in recorded if config != baseline])
    mean_s = statistics.fmean(costs.values())
    left_s = moments(budget_s) - costs[baseline]
    draws = np.clip(left_s / mean_s, 0, len(others)).astype(int)
    found = np.array([_expected_largest(others, int(count)) if count else floor for count in draws])
    return np.where(left_s < 0, 0.0, found) / bench.best


def performance(found: Array, random: Array) -> Array:
    """Share of the way from `random` to the optimum that `found` has gone, at each moment until random search itself is
    as good as there."""
    open_ = 1 - random > _LEAST_GAP
    return (found[open_] - random[open_]) / (1 - random[open_])


def summary(runs: Sequence[Run], random: Array) -> dict[str, Any]:
    """The figures of one strategy over its seeds."""
    at_end = np.array([run.found_over_best for run in runs])
    ooms = [run.oom_trials for run in runs]
    return {
        "seconds_to_2pct": _until([run.seconds_to_close for run in runs]),
        "trials_to_2pct": _until([run.trials_to_close for run in runs]),
        "found_over_best": {"median": float(np.median(at_end)), "p10": float(np.quantile(at_end, 0.1))},
        "oom_trials": {"median": float(np.median(ooms)), "max": max(ooms)},
        "score": _score(runs, random),
        "trials": {"median": float(np.median([run.trials for run in runs]))},
        "ask_ms": {"median": 1000 * float(np.median([run.ask_s for run in runs]))},
        "controller_share": {"median": float(np.median([run.controller_share for run in runs]))},
        "seeds": len(runs),
    }


def _score(runs: Sequence[Run], random: Array) -> float | None:
    """None where random search is as good as there is from the first moment: nothing is left to win."""
    gained = [performance(run.found, random) for run in runs]
    return float(np.mean(gained)) if gained and gained[0].size else None


def _until(values: Sequence[float]) -> dict[str, float | None]:
    """`reached`: share of the seeds; a quantile that falls on one that never got there is None."""
    ordered = sorted(values)

    def quantile(share: float) -> float | None:
        value = ordered[min(math.ceil(share * len(ordered)), len(ordered)) - 1]
        return value if math.isfinite(value) else None

    reached = sum(map(math.isfinite, ordered)) / len(ordered)
    return {"median": quantile(0.5), "p90": quantile(0.9), "reached": reached}


def _expected_largest(values: Array, count: int) -> float:
    """Mean of the largest of `count` values drawn without replacement.

    The i-th largest of N is the largest drawn with probability C(N−i, count−1) ÷ C(N, count).
    """
    ordered = np.sort(values)[::-1]
    whole = len(ordered)
    chance, expected = count / whole, 0.0
    for place, value in enumerate(ordered, start=1):
        expected += chance * float(value)
        if whole - place < count:
            break
        chance *= (whole - place - count + 1) / (whole - place)
    return expected
