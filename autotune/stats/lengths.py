"""Few long runs or many short ones: how long a run should be for the smallest error in a given time."""

from __future__ import annotations

import math

_LEAST_BETWEEN = 0.3
"""Share of the spread of runs that is always taken to lie between processes: a small one cannot be told from none, and
to find it absent takes more runs than there ever are."""


def best_run_s(*, spread: float, within: float, run_s: float, start_s: float) -> float:
    """Seconds to measure in one run, where each also costs `start_s` before it measures.

    `spread`: standard deviation of ln(throughput) between runs of `run_s`; `within`: the part of it that the noise
    inside a run makes, which falls with the root of its length. A run of length t costs start + t and has the variance
    between² + within² · run_s ÷ t; the product of the two is smallest at the root of start · within² · run_s ÷ between²
    (Kalibera & Jones, Rigorous benchmarking in reasonable time, ISMM 2013, for two levels).
    """
    if spread <= 0 or not math.isfinite(within):
        return 0.0
    between = math.sqrt(max(spread**2 - within**2, (_LEAST_BETWEEN * spread) ** 2))
    return math.sqrt(start_s * run_s) * within / between
