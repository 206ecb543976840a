"""A search with several trials at once: all of them kept and told, none twice, and none lost for good."""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from support.bench import Bench
from support.simulation import FormulaBackend

from autotune.errors import EnvironmentFailure
from autotune.execution import OnEvent, TrialLost
from autotune.records import Facts, Progress, Purpose, TrialRequest, TrialResult
from autotune.search import Interrupted, Listener


class Crew:
    """A simulated machine with several slots. Its clock is one, so trials move it one after the other."""

    remarks: tuple[str, ...] = ()

    def __init__(self, inner: FormulaBackend, slots: int, lost: Collection[int] = ()) -> None:
        """`lost`: which of the runs, counted from 0, lose their place."""
        self._inner = inner
        self.slots = slots
        self._lost = lost
        self._turn = threading.Lock()
        self._runs = 0
        self.closed = False

    def __call__(self, _spec: dict[str, Any], _folder: Path) -> Crew:
        return self

    def facts(self, deadline_s: float) -> Facts:
        return self._inner.facts(deadline_s)

    def run(self, request: TrialRequest, *, deadline_s: float, on_event: OnEvent) -> TrialResult:
        with self._turn:
            self._runs += 1
            if self._runs - 1 in self._lost:
                raise TrialLost("node 2 died")
            return self._inner.run(request, deadline_s=deadline_s, on_event=on_event)

    def close(self) -> None:
        self.closed = True


class Watcher:
    def __init__(self) -> None:
        self.most_at_once = 0
        self.threads: set[threading.Thread] = set()

    def __call__(self, progress: Progress) -> None:
        self.threads.add(threading.current_thread())
        if progress.baseline is None:
            assert len(progress.running) <= 1, "the baseline runs alone"
        if progress.phase == "confirming":
            assert len(progress.running) <= 1, "what confirms runs alone"
        self.most_at_once = max(self.most_at_once, len(progress.running))


def run(bench: Bench, crew: Crew, listener: Listener | None = None, **sections: Any) -> Any:
    return bench.search(crew, on=listener, **{"strategy": {"name": "tpe"}, **sections})


@pytest.mark.parametrize("strategy", ["auto", "gp", "tpe", "random"])
def test_several_at_once_are_all_told_and_none_is_run_twice(bench: Bench, strategy: str) -> None:
    watcher = Watcher()
    crew = Crew(bench.backend(busy=0.0), 3)
    result = run(bench, crew, Listener(on_progress=watcher), strategy={"name": strategy}, budget="2m")
    assert watcher.most_at_once == 3
    assert watcher.threads == {threading.current_thread()}
    assert result.best["speedup"]["ratio"] > 1.5
    searched = [record for record in bench.folder.read_trials() if record.optuna_trial is not None]
    assert len({record.result.config for record in searched}) == len(searched)
    trials = bench.optuna_trials()
    assert all(trial.state.is_finished() for trial in trials)
    assert sorted(record.optuna_trial for record in searched if record.optuna_trial is not None) == [
        trial.number for trial in trials
    ]
    assert all(record.predicted for record in searched[3:]) == (strategy == "auto")
    assert crew.closed


def test_a_lost_trial_is_asked_again_and_nothing_that_had_ended_is_lost(bench: Bench) -> None:
    small = {"micro_batch_size": [32, 64], "num_workers": [0, 2], "amp_dtype": ["none", "bf16"]}
    rest = {
        "memory_format": "contiguous",
        "prefetch_factor": 2,
        "compile": "none",
        "fused_optimizer": False,
        "num_threads": 4,
        "activation_checkpointing": False,
    }
    crew = Crew(bench.backend(), 3, lost={2, 3, 5})
    run(bench, crew, search=small | rest, budget="10m", strategy={"name": "random"})
    searched = [record for record in bench.folder.read_trials() if record.optuna_trial is not None]
    assert len(searched) == len({record.result.config for record in searched}) == 8, "the whole space all the same"
    states = [trial.state for trial in bench.optuna_trials()]
    assert states.count(TrialState.FAIL) == 3
    assert states.count(TrialState.COMPLETE) == 8


def test_a_confirming_run_that_is_lost_is_run_again(bench: Bench) -> None:
    first = Crew(bench.backend(busy=0.0), 2)
    run(bench, first, budget="3m")
    records = bench.folder.read_trials()
    confirming = [place for place, record in enumerate(records) if record.purpose is Purpose.CONFIRM]
    again = Bench(bench.folder.path.parent / "again")
    again.folder.path.parent.mkdir()
    result = run(again, Crew(again.backend(busy=0.0), 2, lost={confirming[0], confirming[2]}), budget="3m")
    assert result.best["stability"]["verdict"] == "stable"
    rounds = [record.round for record in again.folder.read_trials() if record.purpose is Purpose.CONFIRM]
    assert {rounds.count(number) for number in (1, 2)} == {rounds.count(1)}, "no round has a gap"


def test_a_machine_that_is_lost_again_and_again_ends_the_study_and_keeps_it(bench: Bench) -> None:
    with pytest.raises(EnvironmentFailure, match="the machine was lost during the baseline's trial"):
        run(bench, Crew(bench.backend(), 2, lost=range(1000)))
    assert all(trial.state.is_finished() for trial in bench.optuna_trials())


def test_ctrl_c_closes_all_that_runs_and_the_study_goes_on(bench: Bench) -> None:
    inner = bench.backend()
    inner.interrupt_at = 6
    with pytest.raises(Interrupted) as interruption:
        run(bench, Crew(inner, 3))
    assert interruption.value.result is not None
    assert all(trial.state.is_finished() for trial in bench.optuna_trials())
    kept = len(bench.folder.read_trials())
    run(bench, Crew(bench.backend(), 3))
    assert len(bench.folder.read_trials()) > kept
