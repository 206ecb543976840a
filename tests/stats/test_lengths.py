"""How long a run should be, against a search over all lengths."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autotune.stats import best_run_s


def cost(length_s: float, between: float, within_1s: float, start_s: float) -> float:
    """Seconds for a mean of unit variance."""
    return (start_s + length_s) * (between**2 + within_1s**2 / length_s)


@pytest.mark.parametrize(
    ("between", "within_1s", "start_s"), [(0.10, 0.05, 0.7), (0.02, 0.02, 5.0), (0.005, 0.01, 5.0), (0.05, 0.2, 1.0)]
)
def test_no_other_length_knows_more_in_the_same_time(between: float, within_1s: float, start_s: float) -> None:
    run_s = 0.8
    within = within_1s / math.sqrt(run_s)
    found = best_run_s(spread=math.hypot(between, within), within=within, run_s=run_s, start_s=start_s)
    least = min(cost(each, between, within_1s, start_s) for each in np.geomspace(0.01, 1000, 2000))
    assert cost(found, between, within_1s, start_s) <= 1.05 * least


def test_the_length_of_the_runs_that_told_of_the_noise_does_not_matter() -> None:
    found = [
        best_run_s(
            spread=math.hypot(0.05, 0.1 / math.sqrt(run_s)), within=0.1 / math.sqrt(run_s), run_s=run_s, start_s=2
        )
        for run_s in (0.5, 2.0, 8.0)
    ]
    assert found == pytest.approx([found[0]] * 3)


def test_a_device_that_is_steady_between_processes_asks_for_long_runs_and_a_shared_one_for_short_ones() -> None:
    """An H200: a start of 5 s, processes that agree to 0.2 %. Two shared cores: 0.7 s, and 10 %."""
    gpu = best_run_s(spread=0.004, within=0.0035, run_s=0.8, start_s=5.0)
    cpu = best_run_s(spread=0.11, within=0.04, run_s=0.8, start_s=0.7)
    assert gpu > 3
    assert cpu < 0.8


def test_noise_that_explains_all_there_is_leaves_a_length_that_is_finite() -> None:
    assert best_run_s(spread=0.02, within=0.05, run_s=1.0, start_s=1.0) == pytest.approx(0.05 / (0.3 * 0.02))


def test_without_noise_or_with_noise_that_nobody_knows_any_length_will_do() -> None:
    assert best_run_s(spread=0.0, within=0.0, run_s=1.0, start_s=5.0) == 0
    assert best_run_s(spread=0.01, within=math.inf, run_s=1.0, start_s=5.0) == 0
