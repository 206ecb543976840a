"""Searches against tables: at the recorded costs, with the recorded noise, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import worlds

from autotune.bench.plot import write_plot
from autotune.bench.replay import Outcome, Plan, bench_of, replay
from autotune.bench.scores import expected_random, run_of
from autotune.bench.session import STRAGGLING, Bench, Crew, run_search
from autotune.errors import SpecError
from autotune.search.strategies import STRATEGIES
from autotune.tables import write_table


@pytest.fixture(scope="module")
def bench() -> Bench:
    return bench_of(worlds.cpu_table(), "cpu")


@pytest.fixture(scope="module")
def small(bench: Bench) -> Bench:
    """Every fifth of its configurations, and the baseline: for searches that try them all."""
    kept = {bench.space.baseline, *list(bench.table.by_config())[::5]}
    runs = tuple(run for run in bench.table.runs if run.config in kept)
    return bench_of(bench.table.model_copy(update={"runs": runs}), "small")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "cpu.json.gz"
    write_table(path, worlds.cpu_table())
    return path


@pytest.mark.parametrize("strategy", sorted(STRATEGIES.keys() - {"factory"}))
def test_every_strategy_searches_a_table(bench: Bench, strategy: str) -> None:
    steps = run_search(bench, strategy, seed=0, budget_s=25.0)
    assert steps[0].config == bench.space.baseline
    assert len({step.config for step in steps}) == len(steps) > 3
    ends = [step.ended_at_s for step in steps]
    assert ends == sorted(ends)
    assert ends[-2] < 25.0


def test_a_seed_repeats_a_search_and_another_draws_other_noise(bench: Bench) -> None:
    one, again, other = (run_search(bench, "random", seed=seed, budget_s=20.0) for seed in (1, 1, 2))
    assert one == again
    assert one[0].samples_per_s != other[0].samples_per_s


def test_a_crew_runs_as_many_trials_at_a_time(bench: Bench) -> None:
    alone = run_search(bench, "random", seed=0, budget_s=25.0)
    four = run_search(bench, "random", seed=0, budget_s=25.0, crew=Crew(workers=4))
    assert four[0] == alone[0], "the baseline runs first, and alone"
    assert 2.5 * len(alone) < len(four) < 5 * len(alone)
    assert len({step.config for step in four}) == len(four)
    ends = [step.ended_at_s for step in four]
    assert ends == sorted(ends)


@pytest.mark.parametrize(("strategy", "budget_s"), [("auto", 12.0), ("gp", 5.0), ("tpe", 12.0)])
def test_strategies_see_what_is_running(bench: Bench, strategy: str, budget_s: float) -> None:
    steps = run_search(bench, strategy, seed=0, budget_s=budget_s, crew=Crew(workers=8))
    assert len({step.config for step in steps}) == len(steps) > 8


def test_what_dies_with_its_worker_is_asked_for_again(small: Bench) -> None:
    crew = Crew(workers=4, failures=0.5)
    steps = run_search(small, "random", seed=0, budget_s=10_000.0, crew=crew)
    assert {step.config for step in steps} == set(small.table.by_config()), "none is lost for good"
    assert len(steps) == len(small.table.by_config())
    sound = run_search(small, "random", seed=0, budget_s=10_000.0, crew=Crew(workers=4))
    assert 1.2 < steps[-1].ended_at_s / sound[-1].ended_at_s < 3


def test_stragglers_take_time_and_nothing_else(small: Bench) -> None:
    sound, slow = (
        run_search(small, "random", seed=0, budget_s=10_000.0, crew=Crew(workers=2, stragglers=share))
        for share in (0.0, 1.0)
    )
    assert slow[-1].ended_at_s == pytest.approx(STRAGGLING * sound[-1].ended_at_s, rel=0.15)
    assert {step.config for step in slow} == {step.config for step in sound}


def test_a_used_up_table_ends_the_search(bench: Bench) -> None:
    few = list(bench.truth)[:6]
    small = bench.table.model_copy(
        update={"runs": tuple(run for run in bench.table.runs if run.config in {*few, bench.space.baseline})}
    )
    for strategy in ("random", "auto", "gp"):
        steps = run_search(bench_of(small, "six"), strategy, seed=0, budget_s=10_000.0)
        assert {step.config for step in steps} == set(small.by_config())
        assert len(steps) == len(small.by_config())


def test_a_sample_of_a_huge_space_is_searched_by_the_model() -> None:
    """Two hundred of some thousand points: neither lost nor looked for one by one."""
    whole = worlds.gpu_table()
    assert bench_of(whole, "gpu").space.points > 1000
    kept = {*list(whole.by_config())[::7], bench_of(whole, "gpu").space.baseline}
    runs = tuple(run for run in whole.runs if run.config in kept)
    sample = bench_of(whole.model_copy(update={"runs": runs}), "sample")
    steps = run_search(sample, "auto", seed=0, budget_s=200.0)
    assert {step.config for step in steps} <= kept
    assert max(sample.truth.get(step.config, 0.0) for step in steps) > 0.95 * sample.best


def test_constraints_on_measures_hold_in_a_replay(bench: Bench) -> None:
    spec = {**bench.table.spec, "constraints": ["peak_memory_bytes <= 0.45GiB"]}
    constrained = bench_of(bench.table.model_copy(update={"spec": spec}), "cpu")
    assert set(constrained.truth) < set(bench.truth)
    assert constrained.best < bench.best
    steps = run_search(constrained, "auto", seed=0, budget_s=40.0)
    assert all(step.samples_per_s is None for step in steps if step.config not in constrained.truth)


def test_a_baseline_outside_the_constraints_is_worth_nothing_and_searched_from(bench: Bench) -> None:
    spec = {**bench.table.spec, "constraints": ["samples_per_s >= 200"]}
    constrained = bench_of(bench.table.model_copy(update={"spec": spec}), "cpu")
    assert constrained.worth(constrained.space.baseline) == 0.0
    steps = run_search(constrained, "auto", seed=0, budget_s=40.0)
    run = run_of(constrained, steps, strategy="auto", seed=0, budget_s=40.0)
    assert run.found[0] == 0.0
    assert run.found_over_best > 0.9
    assert expected_random(constrained, 40.0)[0] == 0.0


def test_the_truth_is_the_mean_over_all_runs(bench: Bench) -> None:
    config, runs = next(iter(bench.table.by_config().items()))
    speeds = [run.samples_per_s for run in runs if run.samples_per_s]
    assert bench.truth[config] == pytest.approx(sum(speeds) / len(speeds))
    assert len(bench.truth) < len(bench.table.by_config())  # some do not fit


def test_a_table_without_its_baseline_is_refused(bench: Bench) -> None:
    others = tuple(run for run in bench.table.runs if run.config != bench.space.baseline)
    with pytest.raises(SpecError, match="its baseline"):
        bench_of(bench.table.model_copy(update={"runs": others}), "table")


def test_a_replay_over_processes_gives_what_one_search_gives(table: Path, bench: Bench) -> None:
    plan = Plan(strategies=["random", "auto"], seeds=2, budget_s=15.0, jobs=2)
    counted: list[tuple[int, int]] = []
    outcome = replay(table, plan, lambda done, planned: counted.append((done, planned)))
    assert counted[-1] == (4, 4)
    alone = run_search(bench, "random", seed=1, budget_s=15.0)
    inside = [step for step in alone if step.ended_at_s <= 15.0]
    assert outcome.runs["random"][1].trials == len(inside)
    document = outcome.document()
    assert set(document["strategies"]) == {"random", "auto"}
    assert {"seconds_to_2pct", "trials_to_2pct", "found_over_best", "oom_trials", "score"} <= set(
        document["strategies"]["auto"]
    )


def test_an_unknown_strategy_is_named_before_anything_runs(table: Path) -> None:
    with pytest.raises(SpecError, match="no strategy 'annealing'; there are auto"):
        replay(table, Plan(strategies=["annealing"], seeds=1, budget_s=5.0, jobs=1))


@pytest.fixture(scope="module")
def outcome(table: Path) -> Outcome:
    return replay(table, Plan(strategies=["random"], seeds=2, budget_s=15.0, jobs=1))


@pytest.mark.parametrize(
    ("suffix", "begins"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".html", b"<!doctype html>")]
)
def test_a_plot_is_a_picture(outcome: Outcome, tmp_path: Path, suffix: str, begins: bytes) -> None:
    path = tmp_path / "figures" / f"plot{suffix}"
    write_plot(path, [outcome, outcome])
    content = path.read_bytes()
    assert content.startswith(begins)
    if suffix != ".png":
        assert b"</svg>" in content


def test_a_plot_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"\.png, \.svg, \.html"):
        write_plot(tmp_path / "plot.gif", [])
