"""The scores of a replay, against figures worked out by hand."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
from support import worlds

from autotune.bench import scores
from autotune.bench.replay import bench_of
from autotune.bench.session import Bench, Step
from autotune.config import TrainConfig
from autotune.records import TrialStatus


@pytest.fixture(scope="module")
def bench() -> Bench:
    return bench_of(worlds.cpu_table(), "cpu")


def ranked(bench: Bench) -> list[TrainConfig]:
    return sorted(bench.truth, key=lambda config: -bench.truth[config])


def step(bench: Bench, config: TrainConfig, ended_at_s: float, *, seen: float | None = None) -> Step:
    speed = bench.truth.get(config) if seen is None else seen
    status = TrialStatus.OK if speed else TrialStatus.OOM
    return Step(config=config, status=status, ended_at_s=ended_at_s, samples_per_s=speed, ask_s=0.01)


def run_of(bench: Bench, steps: list[Step], budget_s: float = 10.0) -> scores.Run:
    return scores.run_of(bench, steps, strategy="auto", seed=0, budget_s=budget_s)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_expected_largest_is_the_mean_over_all_draws(count: int) -> None:
    values = np.array([3.0, 1.0, 4.0, 1.5, 9.0])
    mean = statistics.fmean(max(draw) for draw in itertools.combinations(values.tolist(), count))
    assert scores._expected_largest(values, count) == pytest.approx(mean)


def test_what_was_found_counts_from_when_its_trial_ended(bench: Bench) -> None:
    best, *_, worst = ranked(bench)
    run = run_of(bench, [step(bench, worst, 2.0), step(bench, best, 6.0)])
    assert (run.seconds_to_close, run.trials_to_close) == (6.0, 2)
    times = scores.moments(10.0)
    assert run.found[times < 2.0].max() == 0.0
    assert run.found[times >= 6.0].min() == 1.0
    assert run.found_over_best == 1.0


def test_what_luckier_ones_have_driven_out_does_not_count(bench: Bench) -> None:
    """A search confirms its three fastest: the best is no longer one of them."""
    best, *_, fourth, third, second, worst = ranked(bench)
    lucky = [step(bench, config, 3.0 + n, seen=10 * bench.best) for n, config in enumerate((second, third, fourth))]
    run = run_of(bench, [step(bench, worst, 1.0), step(bench, best, 2.0), *lucky])
    assert math.isinf(run.seconds_to_close)
    assert run.found_over_best < 0.98


def test_where_nothing_is_left_to_win_there_is_no_score(bench: Bench) -> None:
    best = ranked(bench)[0]
    run = run_of(bench, [step(bench, best, 0.01)])
    assert scores.summary([run], np.ones_like(run.found))["score"] is None


def test_what_ends_after_the_budget_does_not_count(bench: Bench) -> None:
    best, *_, worst = ranked(bench)
    run = run_of(bench, [step(bench, worst, 2.0), step(bench, best, 10.5)])
    assert math.isinf(run.seconds_to_close)
    assert run.trials == 1
    assert run.found_over_best == pytest.approx(bench.truth[worst] / bench.best)


def test_luck_among_more_than_three_hides_the_best(bench: Bench) -> None:
    """A study confirms the three fastest; a best one that looked slower than three others is not found."""
    best, *_, fourth, third, second, first = ranked(bench)
    lucky = [step(bench, config, time, seen=10_000.0) for time, config in enumerate((first, second, third), start=1)]
    hidden = run_of(bench, [*lucky, step(bench, best, 4.0)])
    assert math.isinf(hidden.seconds_to_close)
    seen = run_of(bench, [*lucky[:2], step(bench, best, 4.0), step(bench, fourth, 5.0)])
    assert seen.seconds_to_close == 4.0


def test_performance_is_the_share_of_the_way_from_random_to_the_optimum() -> None:
    random = np.array([0.5, 0.8, 1.0])
    assert scores.performance(random, random).tolist() == [0, 0]
    assert scores.performance(np.ones(3), random).tolist() == [1, 1]
    assert scores.performance(np.array([0.4, 0.9, 0.9]), random) == pytest.approx([-0.2, 0.5])


def test_expected_random_search_only_ever_gets_better_and_ends_at_the_best(bench: Bench) -> None:
    found = scores.expected_random(bench, 3600.0)
    assert (np.diff(found) >= -1e-12).all()
    assert found[-1] == pytest.approx(1.0)
    early = scores.expected_random(bench, 8.0)
    assert early[0] == 0.0  # the baseline itself takes its time
    assert early[early > 0][0] == pytest.approx(bench.truth[bench.space.baseline] / bench.best)


def test_a_summary_has_the_promised_figures(bench: Bench) -> None:
    best, *_, worst = ranked(bench)
    failing = next(config for config in bench.table.by_config() if config not in bench.truth)
    quick = run_of(bench, [step(bench, best, 1.0)])
    slow = run_of(bench, [step(bench, worst, 2.0), step(bench, failing, 3.0), step(bench, best, 8.0)])
    never = run_of(bench, [step(bench, worst, 2.0)])
    figures = scores.summary([quick, slow, never], np.full(200, 0.5))
    assert figures["seconds_to_2pct"] == {"median": 8.0, "p90": None, "reached": pytest.approx(2 / 3)}
    assert figures["trials_to_2pct"]["median"] == 3
    assert figures["oom_trials"] == {"median": 0, "max": 1}
    assert figures["found_over_best"]["median"] == 1.0
    assert figures["found_over_best"]["p10"] < 1.0
    assert figures["score"] < 1
