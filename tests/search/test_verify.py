"""Whether a promise holds: the same study, looked at again on a machine that may have changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.bench import Bench
from support.facts import cpu_facts
from support.simulation import Behaviour, FormulaBackend, good_sense

from autotune.config import TrainConfig
from autotune.errors import EnvironmentFailure, SpecError
from autotune.records import Facts, Purpose, TrialStatus, Verification
from autotune.search import Interrupted, verify
from autotune.search.verify import judge
from autotune.stats import Comparison, Estimate, Interval, Outcome


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study: about 4× the baseline."""
    bench = Bench(tmp_path_factory.mktemp("promised"))
    result = bench.search(bench.backend(noise=0.01))
    bench.to_disk()
    assert result.best["stability"]["verdict"] == "stable"
    return bench.folder.path.parent


@pytest.fixture
def promised(finished: Path, tmp_path: Path) -> Bench:
    """A bench with a copy of it."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return Bench(tmp_path, on_disk=True)


def again(
    bench: Bench, behaviour: Behaviour = good_sense, *, facts: Facts | None = None, **options: Any
) -> Verification:
    backend = bench.backend(behaviour, noise=options.pop("noise", 0.01), seed=7, facts=facts)
    return verify(bench.folder, start_backend=backend, clock=bench.clock, **options)


def slower_by(factor: float) -> Behaviour:
    """A machine on which everything but the baseline has lost that factor."""

    def behaviour(config: TrainConfig) -> float:
        return good_sense(config) if config.amp_dtype == "none" else good_sense(config) / factor

    return behaviour


def test_each_run_has_a_process_of_its_own(promised: Bench) -> None:
    backend = promised.backend(noise=0.01, seed=7)
    verify(promised.folder, start_backend=backend, clock=promised.clock, budget_s=120)
    assert backend.requests
    assert not any(request.in_any_process for request in backend.requests)


def test_on_the_same_machine_the_promise_holds(promised: Bench) -> None:
    found = again(promised, budget_s=300)
    assert found.holds
    assert found.outcome == "faster"
    assert found.rounds >= 3
    assert found.ratio == pytest.approx(found.promised_ratio, rel=0.03)
    assert found.environment_changes == ()


def test_runs_alternate_in_fresh_processes_and_are_kept_beside_the_studys_own(promised: Bench) -> None:
    before = promised.folder.read_trials()
    best = promised.folder.best.read_text()
    found = again(promised, budget_s=300)
    added = promised.folder.read_trials()[len(before) :]
    assert {record.purpose for record in added} == {Purpose.VERIFY}
    assert len(added) == 2 * found.rounds
    orders = {tuple(record.result.config for record in added[i : i + 2]) for i in range(0, len(added), 2)}
    assert len(orders) == 2
    assert promised.folder.best.read_text() == best


def test_a_finished_study_stays_finished(promised: Bench) -> None:
    again(promised, budget_s=100)
    assert promised.search(promised.backend()).already_finished


def test_a_speed_up_that_has_shrunk_is_no_promise_kept(promised: Bench) -> None:
    found = again(promised, slower_by(1.5), budget_s=300)
    assert not found.holds
    assert "by less than the search measured" in found.reason
    assert found.outcome == "faster"


def test_what_has_become_slower_than_the_baseline_is_said_to_be(promised: Bench) -> None:
    found = again(promised, slower_by(10), budget_s=300)
    assert not found.holds
    assert "slower than the baseline" in found.reason


def test_noise_that_hides_the_answer_is_no_answer(promised: Bench) -> None:
    found = again(promised, slower_by(3.5), noise=0.6, budget_s=60)
    assert not found.holds
    assert "--budget" in found.reason


def test_a_configuration_that_runs_no_more_is_named_with_its_reason(promised: Bench) -> None:
    def oom(config: TrainConfig) -> float | TrialStatus:
        return TrialStatus.OOM if config.amp_dtype == "bf16" else 100.0

    found = again(promised, oom, budget_s=300)
    assert not found.holds
    assert found.reason == "the result of the study no longer runs here (oom): simulated oom"


def test_the_budget_is_kept(promised: Bench) -> None:
    before = promised.clock()
    again(promised, noise=0.3, budget_s=45)
    assert promised.clock() - before <= 45


def test_what_has_changed_around_it_is_told(promised: Bench) -> None:
    facts = cpu_facts()
    host = facts.host.model_copy(update={"versions": {"torch": "3.0.0"}})
    device = facts.device.model_copy(update={"name": "Another CPU"})
    found = again(promised, facts=facts.model_copy(update={"host": host, "device": device}), budget_s=100)
    assert "torch: was 2.15.0, is 3.0.0" in found.environment_changes
    assert "device: was Test CPU, is Another CPU" in found.environment_changes


def test_the_workload_is_built_from_the_specs_own_folder(
    promised: Bench, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[dict[str, Any], Path]] = []

    def start(spec: dict[str, Any], folder: Path) -> FormulaBackend:
        started.append((spec, folder))
        return promised.backend()

    monkeypatch.chdir("/")
    verify(promised.folder, start_backend=start, clock=promised.clock, budget_s=60)
    ((spec, folder),) = started
    assert folder == finished
    assert spec == yaml.safe_load(promised.folder.spec.read_text())


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study whose baseline was emitted, at 100 samples/s."""
    bench = Bench(tmp_path_factory.mktemp("kept"))
    result = bench.search(bench.backend(lambda _config: 100.0, noise=0.005))
    assert result.best["config"] == result.best["baseline"]["config"]
    bench.to_disk()
    return bench.folder.path.parent


@pytest.mark.parametrize(
    ("now", "holds"),
    [(100.0, True), (96.0, True), (130.0, True), (62.0, False), (50.0, False)],
)
def test_a_baseline_that_was_emitted_has_to_be_as_fast_as_it_was(
    kept: Path, tmp_path: Path, now: float, holds: bool
) -> None:
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    found = again(Bench(tmp_path, on_disk=True), lambda _config: now, budget_s=100)
    assert found.holds is holds
    assert found.known
    assert found.samples_per_s == pytest.approx(now, rel=0.05)
    assert ("as fast as the search measured" if holds else "slower now than the search measured") in found.reason


@pytest.mark.parametrize(
    ("half_width", "holds", "known"),
    [
        pytest.param(0.02, False, True, id="2 %"),
        pytest.param(0.25, False, True, id="25 %"),
        pytest.param(1.0, False, False, id="nobody knows"),
    ],
)
def test_a_figure_of_the_baseline_that_is_too_high_by_60_percent_does_not_hold(
    half_width: float, *, holds: bool, known: bool
) -> None:
    def within(value: float) -> list[float]:
        return [value / (1 + half_width), value * (1 + half_width)]

    config = {"micro_batch_size": 8}
    figures = {"samples_per_s": 160.0, "samples_per_s_ci95": within(160.0)}
    document = {"config": config, "baseline": {"config": config}, "measured": figures}
    alike = Comparison(ratio=Estimate(1.0, None), outcome=Outcome.TIE, pairs=8)
    answer = judge(document, alike, Estimate(100.0, Interval(*within(100.0))), 8)
    assert (answer.holds, answer.known) == (holds, known)


def test_no_time_is_no_answer_and_not_a_broken_promise(promised: Bench) -> None:
    found = again(promised, budget_s=8)
    assert not found.holds
    assert not found.known
    assert found.reason == "the budget was too short for two rounds; give a larger --budget"


def test_what_a_study_left_unconfirmed_is_measured_and_called_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path, on_disk=True)
    backend = bench.backend(noise=0.01)
    backend.interrupt_at = 8
    with pytest.raises(Interrupted):
        bench.search(backend)
    found = again(bench, budget_s=300)
    assert not found.promised
    assert found.known


def test_without_a_result_there_is_nothing_to_verify(bench: Bench) -> None:
    with pytest.raises(SpecError, match="no result yet"):
        verify(bench.folder, start_backend=bench.backend(), clock=bench.clock)


def test_a_spec_that_is_gone_is_an_error_that_says_what_to_do(promised: Bench) -> None:
    promised.folder.spec.unlink()
    with pytest.raises(EnvironmentFailure, match=r"spec\.yaml.*run the same search"):
        again(promised)


@pytest.mark.parametrize(
    ("value", "low", "high", "outcome", "rounds", "holds"),
    [
        pytest.param(2.0, 1.9, 2.1, Outcome.FASTER, 8, True, id="as promised"),
        pytest.param(1.8, 1.6, 2.02, Outcome.FASTER, 8, True, id="less, as it may be by chance"),
        pytest.param(1.7, 1.6, 1.8, Outcome.FASTER, 8, False, id="less"),
        pytest.param(1.4, 1.05, 1.95, Outcome.FASTER, 8, False, id="less, for all that is not known"),
        pytest.param(3.0, 2.8, 3.2, Outcome.FASTER, 8, True, id="more than promised"),
        pytest.param(1.0, 0.98, 1.02, Outcome.TIE, 8, False, id="no faster"),
        pytest.param(1.5, 0.7, 3.2, Outcome.AMBIGUOUS, 8, False, id="nobody can tell"),
        pytest.param(2.0, 1.9, 2.1, Outcome.FASTER, 1, False, id="a single round"),
    ],
)
def test_what_counts_as_kept(value: float, low: float, high: float, outcome: Outcome, rounds: int, holds: bool) -> None:
    document = {"config": {"a": 1}, "baseline": {"config": {"a": 2}}, "speedup": {"ratio": 2.0, "ci95": [1.9, 2.1]}}
    measured = Comparison(ratio=Estimate(value, Interval(low, high)), outcome=outcome, pairs=rounds)
    answer = judge(document, measured, Estimate(100.0, Interval(99.0, 101.0)), rounds)
    assert answer.holds is holds
    assert answer.known is (rounds > 1 and outcome is not Outcome.AMBIGUOUS)
