"""The whole search on a simulated machine: what it finds, what it tells, and that it keeps its promises."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from support.bench import BUDGET_S, Bench
from support.facts import cpu_facts, cuda_facts
from support.simulation import good_sense

from autotune.config import TrainConfig
from autotune.errors import NoStableConfiguration, SpecError, StudyMismatch, WorkloadError
from autotune.records import Facts, Progress, Purpose, TrialRecord, TrialStatus
from autotune.search import Interrupted, Listener
from autotune.search.figures import is_ok, samples_per_s
from autotune.search.smaller_baseline import smaller
from autotune.search.spent import facts_of_the_spent
from autotune.store import StudyFolder

BASELINE = TrainConfig(micro_batch_size=32, grad_accum_steps=4)
STRATEGY_NAMES = ["auto", "gp", "tpe", "qmc", "random", "grid"]
SMALL_SPACE = {
    "micro_batch_size": [16, 32, 64],
    "num_workers": [0, 2],
    "prefetch_factor": 2,
    "compile": "none",
    "fused_optimizer": False,
    "num_threads": 4,
    "activation_checkpointing": False,
}


def records(bench: Bench) -> list[TrialRecord]:
    return bench.folder.read_trials()


def test_finds_what_the_machine_likes(bench: Bench) -> None:
    result = bench.search(bench.backend(), strategy={"name": "auto"})
    best = result.best
    config = TrainConfig.from_dict(best["config"])
    assert config.amp_dtype == "bf16"
    assert config.memory_format == "channels_last"
    assert config.num_workers > 0
    truth = good_sense(config) / good_sense(TrainConfig.from_dict(best["baseline"]["config"]))
    assert best["speedup"]["ci95"][0] < truth < best["speedup"]["ci95"][1]
    assert best["speedup"]["ci95"][0] > 1
    assert best["stability"]["verdict"] == "stable"
    assert yaml.safe_load(bench.folder.best.read_text()) == json.loads(json.dumps(best))


@pytest.mark.parametrize("facts", [cpu_facts(), cuda_facts()], ids=["cpu", "cuda"])
def test_a_stable_verdict_has_no_gate_that_could_not_tell(bench: Bench, facts: Facts) -> None:
    """bf16 on a machine that shows all that a real one would: warm-ups that have not settled, blocks beside other work,
    memory, gradients and activations."""
    best = bench.search(bench.backend(facts=facts), strategy={"name": "auto"}).best
    assert (best["config"]["amp_dtype"], best["stability"]["verdict"]) == ("bf16", "stable")
    assert [check["name"] for check in best["stability"]["checks"] if not check["conclusive"]] == []
    runs = [record.result for record in records(bench)]
    assert {run.warm_up.settled for run in runs if run.warm_up} == {True, False}
    assert any(block.disturbances for run in runs for block in run.blocks)


def test_what_everybody_can_see_is_said_after_few_rounds(tmp_path: Path) -> None:
    """Once "3.96×, 0.01 to 1366.78, ambiguous": in 2 minutes there is time for two rounds or three, some runs of which
    other work has slowed down."""
    widths = []
    for seed in range(5):
        (folder := tmp_path / str(seed)).mkdir()
        bench = Bench(folder)
        best = bench.search(bench.backend(busy=0.04, seed=seed), budget="2m").best
        low, high = best["speedup"]["ci95"]
        ours, theirs = (TrainConfig.from_dict(found["config"]) for found in (best, best["baseline"]))
        assert best["speedup"]["outcome"] == "faster"
        assert low < good_sense(ours) / good_sense(theirs) < high
        widths.append(high / low)
    assert statistics.median(widths) < 1.5
    assert max(widths) < 2.0


def test_baseline_first_then_an_experts_seeds(bench: Bench) -> None:
    bench.search(bench.backend(), budget="5m")
    purposes = [record.purpose for record in records(bench)]
    assert purposes[0] is Purpose.BASELINE
    seeds = [purpose for purpose in purposes if purpose is Purpose.SEED]
    assert 4 <= len(seeds) <= 6
    assert purposes[1] is Purpose.REPEAT
    assert purposes[2 : 2 + len(seeds)] == seeds


def test_the_baseline_is_never_shown_to_be_faster_than_itself(bench: Bench) -> None:
    """Its first run may have been luckier than the repeat that others stand beside."""

    def speed(config: TrainConfig) -> float:
        return 1000.0 if config == BASELINE.replace(num_threads=config.num_threads) else 100.0

    seen: list[Progress] = []
    backend = bench.backend(speed, noise=0.3, seed=1)
    bench.search(backend, on=Listener(on_progress=seen.append), search=SMALL_SPACE, budget="2m")
    after = [each for each in seen if each.baseline is not None]
    assert all(leader.samples_per_s <= each.best_so_far[-1] for each in after for leader in each.leaders)
    ratios = {
        leader.samples_per_s / each.baseline.samples_per_s
        for each in after
        for leader in each.leaders
        if each.baseline and leader.config == each.baseline.config
    }
    assert ratios == {1.0}


def test_search_never_runs_a_configuration_twice(bench: Bench) -> None:
    bench.search(bench.backend(), strategy={"name": "tpe"})
    searched = [record.result.config for record in records(bench) if record.optuna_trial is not None]
    assert len(searched) == len(set(searched))


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_every_strategy_covers_a_small_space_once_and_stops(bench: Bench, strategy: str) -> None:
    tiny = SMALL_SPACE | {"memory_format": "contiguous"}
    bench.search(bench.backend(), strategy={"name": strategy}, search=tiny, budget="10m", use_all=True)
    searched = [record.result.config for record in records(bench) if record.optuna_trial is not None]
    assert len(searched) == len(set(searched)) == 3 * 2 * 2


def test_effective_batch_size_is_a_hard_constraint(bench: Bench) -> None:
    bench.search(bench.backend())
    assert {record.result.config.effective_batch_size for record in records(bench)} == {128}


@pytest.mark.parametrize(
    ("strategy", "status"),
    [
        ("auto", TrialStatus.OOM),
        ("tpe", TrialStatus.OOM),
        ("random", TrialStatus.DIVERGED),
        ("random", TrialStatus.CRASHED),
    ],
)
def test_a_wall_is_never_told_as_fail(bench: Bench, strategy: str, status: TrialStatus) -> None:
    def wall(config: TrainConfig) -> float | TrialStatus:
        return status if config.micro_batch_size > 32 else good_sense(config)

    result = bench.search(bench.backend(wall), strategy={"name": strategy}, search=SMALL_SPACE)
    assert result.best["config"]["micro_batch_size"] <= 32
    assert result.best["stability"]["verdict"] == "stable"
    assert result.best["search"]["by_status"][status] > 0
    states = Counter(trial.state.name for trial in bench.optuna_trials() if "status" in trial.user_attrs)
    assert states["FAIL"] == states["RUNNING"] == 0
    best_value = max(trial.value for trial in bench.optuna_trials() if trial.value is not None)
    failed = [trial.value for trial in bench.optuna_trials() if trial.user_attrs["status"] == status]
    assert all(value is None or value < best_value for value in failed)


def test_baseline_that_fails_ends_the_study_with_its_reason(bench: Bench) -> None:
    with pytest.raises(NoStableConfiguration, match=r"baseline settings \(oom\).*simulated oom.*not even one sample"):
        bench.search(bench.backend(lambda _config: TrialStatus.OOM))
    assert records(bench)[0].result.status is TrialStatus.OOM


def only_up_to(size: int) -> Callable[[TrainConfig], float | TrialStatus]:
    return lambda config: TrialStatus.OOM if config.micro_batch_size > size else good_sense(config)


def test_a_baseline_that_does_not_fit_is_stepped_down_and_that_is_said(bench: Bench) -> None:
    seen: list[str] = []
    result = bench.search(
        bench.backend(only_up_to(8)),
        on=Listener(on_progress=lambda progress: seen.append(progress.message)),
        budget="5m",
    )
    baseline = TrainConfig.from_dict(result.best["baseline"]["config"])
    assert (baseline.micro_batch_size, baseline.grad_accum_steps) == (8, 16)
    ran = [record.result for record in records(bench) if record.purpose is Purpose.BASELINE]
    assert [(run.config.micro_batch_size, run.config.grad_accum_steps, run.status) for run in ran] == [
        (32, 4, TrialStatus.OOM),
        (16, 8, TrialStatus.OOM),
        (8, 16, TrialStatus.OK),
    ]
    for said in (seen, result.notes):
        assert any(
            "not fit into memory with a micro-batch of 32: everything is compared with 8 × 16" in line for line in said
        )
    assert result.best["stability"]["verdict"] == "stable"
    assert result.best["search"]["elapsed_s"] <= result.best["search"]["budget_s"]


def test_a_baseline_that_did_not_fit_is_not_tried_again(bench: Bench) -> None:
    held = {"num_workers": 0, "compile": "none", "amp_dtype": "none", "memory_format": "contiguous", "num_threads": 4}
    search = {"micro_batch_size": [2, 4, 8, 16, 32], "fused_optimizer": False, **held}
    bench.search(bench.backend(only_up_to(8)), budget="5m", search=search)
    ran = [record.result.config.micro_batch_size for record in records(bench) if record.optuna_trial is not None]
    assert sorted(ran) == [2, 4, 8, 16, 32]


def test_a_resumed_study_comes_to_the_same_smaller_baseline(bench: Bench) -> None:
    def interrupt(record: TrialRecord) -> None:
        if record.number == 4:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        bench.search(bench.backend(only_up_to(8)), on=Listener(on_trial=interrupt))
    result = bench.search(bench.backend(only_up_to(8)))
    assert result.best["baseline"]["config"]["micro_batch_size"] == 8
    assert sum(record.purpose is Purpose.BASELINE for record in records(bench)) == 3
    assert bench.search(bench.backend(only_up_to(8))).already_finished


@pytest.mark.parametrize(("micro", "less"), [(32, 16), (15, 5), (7, 1), (2, 1)])
def test_a_smaller_baseline_trains_the_same(micro: int, less: int) -> None:
    config = TrainConfig(micro_batch_size=micro, grad_accum_steps=3, amp_dtype="bf16")
    found = smaller(config)
    assert found is not None
    assert found.micro_batch_size == less
    assert found.effective_batch_size == config.effective_batch_size
    assert smaller(TrainConfig(micro_batch_size=1)) is None


def test_a_baseline_that_failed_is_tried_again(bench: Bench) -> None:
    with pytest.raises(NoStableConfiguration):
        bench.search(bench.backend(lambda _config: TrialStatus.FAILED))
    assert bench.search(bench.backend()).best["stability"]["verdict"] == "stable"


def test_baseline_stands_where_nothing_is_faster(bench: Bench) -> None:
    result = bench.search(bench.backend(lambda _config: 100.0))
    assert result.best["config"] == result.best["baseline"]["config"]
    assert result.best["speedup"]["ratio"] == 1.0
    assert any("keeps the baseline" in note for note in result.notes)


def test_a_baseline_that_stands_is_stable_once_the_others_are_ruled_out(bench: Bench) -> None:
    best = bench.search(bench.backend(lambda _config: 100.0, noise=0.005), budget="5m").best
    checks = {check["name"]: check for check in best["stability"]["checks"]}
    assert checks["nothing_faster"]["passed"]
    assert best["stability"]["verdict"] == "stable"
    assert bench.search(bench.backend(), budget="5m").already_finished


def test_a_baseline_that_stands_in_doubt_is_unconfirmed_and_the_study_goes_on(bench: Bench) -> None:
    result = bench.search(bench.backend(lambda _config: 100.0, noise=0.3))
    checks = {check["name"]: check for check in result.best["stability"]["checks"]}
    assert result.best["config"] == result.best["baseline"]["config"]
    assert not checks["nothing_faster"]["passed"]
    assert result.best["stability"]["verdict"] == "unconfirmed"
    assert any("Not confirmed: the best other, " in note for note in result.notes)
    assert not bench.search(bench.backend()).already_finished


def test_nothing_is_called_faster_without_an_interval(bench: Bench) -> None:
    """Steps so slow that the budget holds single runs, but not two rounds of them."""
    best = bench.search(bench.backend(lambda config: good_sense(config) / 10), budget="5m").best
    rounds = Counter(record.round for record in records(bench) if record.purpose is Purpose.CONFIRM)
    assert len(rounds) == 1
    assert best["speedup"]["ratio"] > 1
    assert best["speedup"]["ci95"] is None
    assert best["stability"]["verdict"] == "unconfirmed"


def test_a_tie_goes_to_the_smaller_change(bench: Bench) -> None:
    def only_amp(config: TrainConfig) -> float:
        return 200.0 if config.amp_dtype == "bf16" else 100.0

    config = TrainConfig.from_dict(bench.search(bench.backend(only_amp, noise=0.001)).best["config"])
    finalists = {record.result.config for record in records(bench) if record.purpose is Purpose.CONFIRM}
    baseline = records(bench)[0].result.config
    fewest = min(len(other.differences(baseline)) for other in finalists if other.amp_dtype == "bf16")
    assert len(config.differences(baseline)) == fewest


@pytest.mark.parametrize("budget", ["30s", "2m", "6m"])
def test_never_later_than_the_budget(bench: Bench, budget: str) -> None:
    before = bench.clock()
    bench.search(bench.backend(), budget=budget)
    seconds = {"30s": 30, "2m": 120, "6m": 360}[budget]
    assert bench.clock() - before <= seconds


def test_trials_that_hang_do_not_break_the_budget(bench: Bench) -> None:
    def hangs(config: TrainConfig) -> float | TrialStatus:
        return TrialStatus.TIMEOUT if config.num_workers else good_sense(config)

    before = bench.clock()
    result = bench.search(bench.backend(hangs))
    assert bench.clock() - before <= BUDGET_S
    assert result.best["config"]["num_workers"] == 0


def test_a_trial_cut_short_by_the_end_of_the_search_is_told_as_fail_and_a_slow_one_is_not(bench: Bench) -> None:
    before, moments = bench.clock(), [24.0, 160.0]

    def hangs_twice(config: TrainConfig) -> float | TrialStatus:
        if moments and bench.clock() - before > moments[0]:
            moments.pop(0)
            return TrialStatus.TIMEOUT
        return good_sense(config)

    bench.search(bench.backend(hangs_twice), budget="5m")
    slow, cut = [record for record in records(bench) if record.result.status is TrialStatus.TIMEOUT]
    assert (slow.cut_short, cut.cut_short) == (False, True)
    assert cut.result.wall_s < slow.result.wall_s
    assert cut.elapsed_s <= 210 + 9, "no longer past the end of the search than one trial takes"
    states = {trial.number: trial.state.name for trial in bench.optuna_trials()}
    assert slow.optuna_trial is not None
    assert cut.optuna_trial is not None
    assert states[slow.optuna_trial] != "FAIL"
    assert states[cut.optuna_trial] == "FAIL"


def test_a_budget_that_is_spent_before_the_baseline_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = bench.backend()

    def slow(_deadline_s: float) -> Facts:
        bench.clock.advance(400)
        return cpu_facts()

    monkeypatch.setattr(backend, "facts", slow)
    with pytest.raises(NoStableConfiguration, match="the budget of 3m ended before the baseline was measured"):
        bench.search(backend)
    assert backend.requests == []


def test_the_luckiest_trial_of_the_search_is_not_believed(bench: Bench) -> None:
    """What is emitted comes from the confirming runs and the soak, however fast the search's trial was."""
    found = []
    for seed in range(5):
        best = bench.search(bench.backend(noise=0.15, seed=seed), search=SMALL_SPACE, fresh=True).best
        config = TrainConfig.from_dict(best["config"])
        runs = [record for record in records(bench) if record.result.config == config]
        confirming = [samples_per_s(run) for run in runs if run.purpose in (Purpose.CONFIRM, Purpose.SOAK)]
        assert min(confirming) < best["measured"]["samples_per_s"] < max(confirming)
        assert best["measured"]["samples_per_s"] < max(map(samples_per_s, filter(is_ok, records(bench))))
        low, high = best["measured"]["samples_per_s_ci95"]
        found.append(low < good_sense(config) < high)
    assert sum(found) >= 4


def test_the_winner_and_the_baseline_run_in_turns_of_random_order(bench: Bench) -> None:
    """The baseline in each round until it is clear which is faster, then in every other one at least."""
    best = bench.search(bench.backend()).best
    rounds: dict[int, list[TrainConfig]] = {}
    for record in records(bench):
        if record.purpose is Purpose.CONFIRM and record.round is not None:
            rounds.setdefault(record.round, []).append(record.result.config)
    winner, baseline = (TrainConfig.from_dict(c) for c in (best["config"], best["baseline"]["config"]))
    together = sum({winner, baseline} <= set(configs) for configs in rounds.values())
    alone = sum(winner in configs for configs in rounds.values()) - together
    assert together >= 2
    assert 1 <= alone <= together + 1
    assert len(rounds[1]) == len(rounds[2]) == 4
    assert len({configs.index(baseline) for configs in rounds.values() if baseline in configs}) > 1


def test_a_finalist_that_diverges_when_confirmed_is_out(bench: Bench) -> None:
    seen: Counter[TrainConfig] = Counter()

    def fragile(config: TrainConfig) -> float | TrialStatus:
        seen[config] += 1
        if config.memory_format == "channels_last" and config.amp_dtype == "bf16" and seen[config] > 1:
            return TrialStatus.DIVERGED
        return good_sense(config)

    result = bench.search(bench.backend(fragile))
    config = TrainConfig.from_dict(result.best["config"])
    assert (config.memory_format, config.amp_dtype) != ("channels_last", "bf16")


def test_a_configuration_that_learns_worse_is_refused(bench: Bench) -> None:
    def loss(config: TrainConfig, samples: int) -> float:
        return 2.3 if config.amp_dtype == "bf16" else 2.3 / (1 + samples / 1000)

    result = bench.search(bench.backend(loss=loss))
    assert result.best["config"]["amp_dtype"] == "none"


def test_a_free_effective_batch_keeps_one_finalist_at_the_baselines(bench: Bench) -> None:
    def larger_is_faster(config: TrainConfig) -> float:
        return 10.0 * math.sqrt(config.effective_batch_size)

    bench.search(bench.backend(larger_is_faster), training={"effective_batch_size": "free"})
    finalists = {record.result.config for record in records(bench) if record.purpose is Purpose.CONFIRM}
    baseline = records(bench)[0].result.config
    others = [config for config in finalists if config != baseline]
    assert any(config.effective_batch_size == baseline.effective_batch_size for config in others)


def test_interrupt_emits_the_best_so_far(bench: Bench) -> None:
    backend = bench.backend()
    backend.interrupt_at = 8
    with pytest.raises(Interrupted) as caught:
        bench.search(backend)
    assert caught.value.result is not None
    assert caught.value.result.best["stability"]["verdict"] == "unconfirmed"
    assert bench.folder.read_best() == caught.value.result.best
    assert backend.closed
    assert not [trial for trial in bench.optuna_trials() if trial.state.name == "RUNNING"]


def test_interrupted_study_goes_on_with_the_rest_of_its_budget(bench: Bench) -> None:
    backend = bench.backend()
    backend.interrupt_at = 8
    began = bench.clock()
    with pytest.raises(Interrupted):
        bench.search(backend)
    bench.clock.advance(10_000)
    resumed = bench.clock()
    result = bench.search(bench.backend(seed=1))
    assert result.best["stability"]["verdict"] == "stable"
    assert (bench.clock() - resumed) + (resumed - 10_000 - began) <= BUDGET_S + 7
    numbers = [record.number for record in records(bench)]
    assert numbers == list(range(len(numbers)))
    searched = [record.result.config for record in records(bench) if record.optuna_trial is not None]
    assert len(searched) == len(set(searched))


def test_a_study_that_is_resumed_with_too_little_time_for_a_start_is_concluded_without_one(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    of_a_killed_one = tmp_path / "autotune-scratch-12345678"
    of_a_killed_one.mkdir()
    backend = bench.backend()
    backend.interrupt_at = 12
    with pytest.raises(Interrupted):
        bench.search(backend, budget="5m")
    bench.folder.write_trial(records(bench)[-1].model_copy(update={"elapsed_s": 295.0}))
    bench.clock.advance(10_000)
    again = bench.backend(seed=1)
    resumed = bench.clock()
    result = bench.search(again, budget="5m")
    assert again.requests == []
    assert not again.closed, "never started"
    assert not of_a_killed_one.exists()
    assert bench.clock() == resumed, "not even a start fits"
    assert result.best["search"]["runs"] == len(records(bench))
    assert result.best["stability"]["verdict"] == "unconfirmed"
    assert re.match(
        r"Nothing was run this time: \d s of the budget were left, and a start takes .*10m", result.notes[-1]
    )
    larger = bench.search(bench.backend(seed=1), budget="10m")
    assert larger.best["stability"]["verdict"] == "stable", "a larger budget goes on"


def test_a_slow_first_start_is_not_expected_again(bench: Bench) -> None:
    """Its files are written, and what it loads is in memory."""
    backend = bench.backend()
    backend.interrupt_at = 8
    with pytest.raises(Interrupted):
        bench.search(backend)
    first, *_, last = records(bench)
    slow = [record.model_copy(update={"elapsed_s": record.elapsed_s + 60}) for record in (first, last)]
    left_s = 20
    assert facts_of_the_spent(slow, slow[-1].elapsed_s + left_s, 0.0) is None
    assert facts_of_the_spent(slow, slow[-1].elapsed_s + 2, 0.0) == first.environment
    assert facts_of_the_spent([], 60, 0.0) is None


def test_a_finished_study_is_shown_not_run(bench: Bench) -> None:
    first = bench.search(bench.backend())
    backend = bench.backend()
    second = bench.search(backend)
    assert second.already_finished
    assert second.best == first.best
    assert backend.requests == []


def test_a_finished_study_goes_on_with_a_larger_budget_only(bench: Bench) -> None:
    bench.search(bench.backend(), budget="2m")
    larger = bench.backend(seed=1)
    second = bench.search(larger, budget="4m")
    assert larger.requests
    assert not second.already_finished
    assert second.best["stability"]["verdict"] == "stable"
    assert bench.search(bench.backend(), budget="2m").already_finished
    assert bench.search(bench.backend(), budget="4m").already_finished


def test_starting_afresh_keeps_the_earlier_study_aside(bench: Bench) -> None:
    first = bench.search(bench.backend(), budget="2m")
    second = bench.search(bench.backend(seed=1), fresh=True, budget="2m")
    assert not second.already_finished
    assert bench.folder.aside is not None
    assert StudyFolder(bench.folder.aside).read_best() == first.best
    assert bench.folder.read_best() == second.best
    assert records(bench)[0].number == 0


def test_a_running_study_is_not_moved_away_by_a_fresh_one(bench: Bench) -> None:
    bench.search(bench.backend(), budget="2m")
    running = StudyFolder(bench.folder.path)
    running.open()
    with pytest.raises(StudyMismatch, match="another autotune is running this study"):
        bench.search(bench.backend(), fresh=True, budget="2m")
    running.close()
    assert bench.folder.aside is None
    assert running.read_best() is not None


def test_a_workload_that_does_not_build_leaves_the_earlier_study_where_it_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bench.search(bench.backend(), budget="2m")
    backend = bench.backend()

    def broken(_deadline_s: float) -> Facts:
        raise WorkloadError("no such model")

    monkeypatch.setattr(backend, "facts", broken)
    with pytest.raises(WorkloadError):
        bench.search(backend, fresh=True, budget="2m")
    assert bench.folder.aside is None
    assert bench.folder.read_best() == first.best


def test_a_larger_budget_goes_on_another_model_does_not(bench: Bench) -> None:
    backend = bench.backend()
    backend.interrupt_at = 8
    with pytest.raises(Interrupted):
        bench.search(backend, budget="5m")
    with pytest.raises(StudyMismatch, match=r"spec\.model\.timm: was resnet18, is resnet34[\s\S]*--fresh"):
        bench.search(bench.backend(), model={"timm": "resnet34"}, budget="5m")
    assert bench.search(bench.backend(), budget="10m").best["search"]["budget_s"] == 600


def test_records_settle_what_a_crash_left_running(tmp_path: Path) -> None:
    """kill -9 between the record and its tell, and between the ask and the record."""
    bench = Bench(tmp_path, on_disk=True)
    backend = bench.backend()
    backend.interrupt_at = 9
    with pytest.raises(Interrupted):
        bench.search(backend, budget="2m")
    storage = optuna.storages.RDBStorage(f"sqlite:///{bench.folder.database}")
    study = optuna.load_study(study_name="autotune", storage=storage)
    done = [trial for trial in study.get_trials() if trial.state.name == "COMPLETE"]
    _reopen(storage, done[-1])
    study.ask(done[-1].distributions)
    storage.engine.dispose()
    bench.search(bench.backend(), budget="2m")
    states = {trial.number: trial for trial in bench.optuna_trials()}
    assert states[done[-1].number].state.name == "COMPLETE"
    assert states[done[-1].number].value == pytest.approx(done[-1].value)
    assert not [trial for trial in states.values() if trial.state.name == "RUNNING"]


def _reopen(storage: Any, trial: optuna.trial.FrozenTrial) -> None:
    """Put a told trial back to the state before it was told."""
    import sqlalchemy

    with storage.engine.begin() as connection:
        connection.execute(
            sqlalchemy.text("UPDATE trials SET state = 'RUNNING', datetime_complete = NULL WHERE trial_id = :id"),
            {"id": trial._trial_id},
        )
        connection.execute(sqlalchemy.text("DELETE FROM trial_values WHERE trial_id = :id"), {"id": trial._trial_id})


def test_a_prediction_stands_beside_each_trial_and_in_the_result(bench: Bench) -> None:
    result = bench.search(bench.backend(), strategy={"name": "auto"}, search=SMALL_SPACE)
    records = bench.folder.read_trials()
    told = [record for record in records if record.predicted is not None]
    assert told
    assert all(record.purpose is Purpose.SEARCH for record in told)
    assert all(record.predicted.low < record.predicted.high for record in told if record.predicted)
    section = result.best["search"]["strategy"]
    assert section["name"] == "auto"
    assert section["predictions"] == len(told)
    assert 0 <= section["within_interval"] <= 1
    assert any("amp_dtype" in effect["set"] for effect in section["learned"]["effects"])
    emitted = section["emitted"]
    assert emitted["predicted"]["low"] < emitted["predicted"]["samples_per_s"] < emitted["predicted"]["high"]


def test_the_users_own_sampler_searches(bench: Bench) -> None:
    own = {"factory": "optuna.samplers:TPESampler", "args": {"n_startup_trials": 2}}
    result = bench.search(bench.backend(), strategy=own, search=SMALL_SPACE)
    assert result.best["search"]["strategy"] == {"name": "factory", "predictions": 0}


def test_an_argument_that_the_sampler_lacks_ends_the_study_before_any_trial(bench: Bench) -> None:
    backend = bench.backend()
    with pytest.raises(SpecError, match=r"strategy\.args\.n_startup_trails.*did you mean n_startup_trials"):
        bench.search(backend, strategy={"name": "tpe", "args": {"n_startup_trails": 2}}, search=SMALL_SPACE)
    assert backend.requests == []
    assert backend.closed


def test_a_constraint_on_a_measure_is_told_and_kept(bench: Bench) -> None:
    """The fastest fits no more: what is emitted stays below the limit, and Optuna knows which trials did not."""
    limit = "peak_memory_bytes <= 20MiB"
    result = bench.search(bench.backend(), strategy={"name": "auto"}, search=SMALL_SPACE, constraints=[limit])
    assert result.best["config"]["micro_batch_size"] == 16
    told = [trial for trial in bench.optuna_trials() if trial.constraints]
    assert {len(trial.constraints) for trial in told} == {2}
    assert {trial.constraints["constraint_0"] > 0 for trial in told} == {True, False}
