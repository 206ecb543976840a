"""A search ends when it is over: the leader confirmed and stable, and nothing left that promises 1 %."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from support.bench import Bench
from support.simulation import good_sense

from autotune.config import TrainConfig
from autotune.records import Purpose, SearchResult
from autotune.search.policy import CONFIRM_SHARE

AUTO: dict[str, Any] = {
    "strategy": {"name": "auto"},
    "budget": "6m",
    "search": {
        "micro_batch_size": [16, 32, 64, 128],
        "num_workers": [0, 2],
        "compile": "none",
        "num_threads": [2, 4],
        "activation_checkpointing": False,
    },
}


def trials(bench: Bench) -> int:
    return sum(record.optuna_trial is not None for record in bench.folder.read_trials())


def elapsed_s(result: SearchResult) -> float:
    return float(result.best["search"]["elapsed_s"])


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, SearchResult]:
    bench = Bench(tmp_path_factory.mktemp("ended"))
    return bench, bench.search(bench.backend(), **AUTO)


@pytest.fixture
def early(ended: tuple[Bench, SearchResult]) -> SearchResult:
    return ended[1]


def test_it_ends_long_before_its_budget_with_the_best(early: SearchResult) -> None:
    assert early.best["stability"]["verdict"] == "stable"
    assert elapsed_s(early) < 240
    assert early.best["search"]["strategy"]["left_to_gain"] < 0.01
    best = TrainConfig.from_dict(early.best["config"])
    assert good_sense(best) > 0.97 * max(map(good_sense, neighbours(best)))


def neighbours(config: TrainConfig) -> list[TrainConfig]:
    """What `good_sense` could like better."""
    changes: list[dict[str, Any]] = [
        {"amp_dtype": "bf16", "memory_format": "channels_last"},
        {"num_workers": 2, "prefetch_factor": 2},
        {"micro_batch_size": 128, "grad_accum_steps": 1},
    ]
    return [config, *(config.replace(**change) for change in changes)]


def test_all_of_the_budget_is_spent_where_that_is_asked(bench: Bench) -> None:
    spent = bench.search(bench.backend(), use_all=True, **AUTO | {"budget": "5m"})
    assert elapsed_s(spent) > 300 * (1 - CONFIRM_SHARE)
    assert spent.best["stability"]["verdict"] == "stable"


def test_every_knob_is_changed_once_before_nothing_is_left_to_gain(ended: tuple[Bench, SearchResult]) -> None:
    """Loading takes no time in this machine's trials, so that a model that trusts physics expects nothing of loader
    processes; they make it 1.2 times as fast all the same."""
    bench, early = ended
    baseline = TrainConfig.from_dict(early.best["baseline"]["config"])
    searched = [record.result.config for record in bench.folder.read_trials() if record.optuna_trial is not None]
    varied = {knob for config in searched for knob in config.differences(baseline)}
    assert {"micro_batch_size", "amp_dtype", "memory_format", "num_workers", "num_threads"} <= varied
    assert early.best["config"]["num_workers"] > 0


def test_one_that_has_ended_early_goes_on_when_asked(ended: tuple[Bench, SearchResult]) -> None:
    """In the study of the tests before it."""
    bench, _ = ended
    before = trials(bench)
    again = bench.search(bench.backend(), **AUTO)
    assert (again.already_finished, trials(bench)) == (True, before)
    gone_on = bench.search(bench.backend(), use_all=True, **AUTO)
    assert not gone_on.already_finished
    assert trials(bench) > before
    assert gone_on.best["stability"]["verdict"] == "stable"


def test_other_strategies_know_no_end(bench: Bench) -> None:
    result = bench.search(bench.backend(), strategy={"name": "random"}, budget="5m")
    assert "left_to_gain" not in result.best["search"]["strategy"]
    assert elapsed_s(result) > 300 * (1 - CONFIRM_SHARE)


FIXED = {"micro_batch_size": 32, "amp_dtype": "none", "memory_format": "contiguous", "num_threads": 4}
FIXED |= {"pin_memory": False, "compile": "none", "fused_optimizer": False, "activation_checkpointing": False}


def twice_as_fast(
    bench: Bench, noise: float, *, use_all: bool, fresh: bool = False
) -> tuple[dict[str, Any], float, int]:
    """What was emitted, half the width of its interval, and how many confirming runs there were."""

    def speed(config: TrainConfig) -> float:
        return 2000.0 if config.num_workers else 1000.0

    space = FIXED | {"num_workers": [0, 2], "prefetch_factor": 2}
    backend = bench.backend(speed, noise=noise)
    best = bench.search(backend, search=space, budget="10m", use_all=use_all, fresh=fresh).best
    runs = sum(record.purpose is Purpose.CONFIRM for record in bench.folder.read_trials())
    low, high = best["measured"]["samples_per_s_ci95"]
    assert best["stability"]["verdict"] == "stable"
    return best, math.log(high / low) / 2, runs


@pytest.mark.parametrize(("use_all", "known_to"), [(False, 0.03), (True, 0.02)])
def test_after_their_share_rounds_go_on_only_for_what_must_be_known(
    bench: Bench, use_all: bool, known_to: float
) -> None:
    """On average over machines: how well the soak, which counts, will fit what was measured is expected, not known."""
    widths, confirming = [], []
    for number, noise in enumerate((0.036, 0.04, 0.042, 0.044)):
        best, half_width, runs = twice_as_fast(bench, noise, use_all=use_all, fresh=number > 0)
        of_it = [record for record in bench.folder.read_trials() if record.result.config.to_dict() == best["config"]]
        counted = sum(record.purpose in (Purpose.CONFIRM, Purpose.SOAK) for record in of_it)
        widths.append(half_width / math.sqrt(1 + counted / 16))  # slow changes, which no round makes less
        confirming.append(runs)
        assert best["search"]["elapsed_s"] < 500
    assert statistics.fmean(widths) == pytest.approx(known_to, rel=0.15)
    assert (statistics.fmean(confirming) > 36) == use_all
