"""Where a workload fails, for whoever has to fix it: the line of the spec, of the code, and the traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.facts import cpu_facts
from support.simulation import Clock, FormulaBackend
from support.storage import MemoryStudies

from autotune.errors import NoStableConfiguration, SpecError, WorkloadError
from autotune.records import Failure, TrialRequest, TrialResult, TrialStatus
from autotune.search import look_around, search
from autotune.search.smaller_baseline import said
from autotune.spec import LoadedSpec, load_spec
from autotune.store import StudyFolder

SPEC = """\
model: {timm: resnet18}
data: {synthetic: {}}
training:
  loss: "proj:loss"
budget: 5m
"""
FAILURE = Failure(
    reason="KeyError: 'labels' (proj.py:41, in loss)", section="training.loss", traceback="Traceback: …\nKeyError"
)


class Failing(FormulaBackend):
    """Every trial ends with `failure`."""

    def __init__(self, failure: Failure | None, status: TrialStatus = TrialStatus.FAILED) -> None:
        super().__init__(Clock(), cpu_facts())
        self._outcome = failure, status

    def run(self, request: TrialRequest, **_options: Any) -> TrialResult:
        self.requests.append(request)
        failure, status = self._outcome
        return TrialResult(config=request.config, status=status, seed=0, wall_s=1.0, failure=failure)


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedSpec:
    path = tmp_path / "mine.yaml"
    path.write_text(SPEC)
    return load_spec(path)


def test_a_step_of_the_baseline_that_fails(loaded: LoadedSpec, tmp_path: Path) -> None:
    backend = Failing(FAILURE)
    with pytest.raises(WorkloadError) as caught:
        look_around(loaded, 60.0, runs=True, start_backend=backend)
    assert str(caught.value) == (
        f"{tmp_path}/mine.yaml:4:9: training.loss: one step with the baseline settings fails: {FAILURE.reason}"
    )
    assert backend.closed
    assert [(request.max_steps, request.config.micro_batch_size) for request in backend.requests] == [(1, 32)]


def test_a_step_of_one_sample_that_does_not_fit_says_so(loaded: LoadedSpec) -> None:
    backend = Failing(Failure(reason="no room"), TrialStatus.OOM)
    with pytest.raises(WorkloadError, match=r"^one step .* no room; not even one sample fits into memory$"):
        look_around(loaded, 60.0, runs=True, start_backend=backend)
    assert [request.config.micro_batch_size for request in backend.requests] == [32, 16, 8, 4, 2, 1]
    assert {request.config.effective_batch_size for request in backend.requests} == {32}


def test_validate_finds_the_baseline_that_fits_and_says_so(loaded: LoadedSpec) -> None:
    backend = FormulaBackend(
        Clock(), cpu_facts(), lambda config: TrialStatus.OOM if config.micro_batch_size > 8 else 100.0
    )
    _, space = look_around(loaded, 60.0, runs=True, start_backend=backend)
    assert (space.baseline.micro_batch_size, space.baseline.grad_accum_steps) == (8, 4)
    assert "micro-batch of 32: everything is compared with 8 × 4" in (said(space.baseline, space.too_large) or "")


def test_without_a_run_nothing_is_trained(loaded: LoadedSpec) -> None:
    backend = Failing(FAILURE)
    look_around(loaded, 60.0, start_backend=backend)
    assert backend.requests == []
    sound = Failing(None, TrialStatus.OK)
    look_around(loaded, 60.0, runs=True, start_backend=sound)
    assert len(sound.requests) == 1


def test_a_workload_that_cannot_be_built(loaded: LoadedSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any) -> Any:
        raise WorkloadError(["model.timm: unknown model", "training.optimizer: unknown optimizer"])

    backend = Failing(None)
    monkeypatch.setattr(backend, "facts", refuse)
    with pytest.raises(WorkloadError) as caught:
        look_around(loaded, 60.0, start_backend=backend)
    expected = (f"{tmp_path}/mine.yaml:1:15: model.timm: unknown model",)
    assert caught.value.problems[:1] == expected
    with pytest.raises(WorkloadError) as caught:
        search(loaded, StudyFolder(tmp_path / "study"), start_backend=backend, open_study=MemoryStudies())
    assert caught.value.problems[:1] == expected


def test_a_baseline_that_fails_in_a_search(loaded: LoadedSpec, tmp_path: Path) -> None:
    backend, folder = Failing(FAILURE), StudyFolder(tmp_path / "study")
    with pytest.raises(NoStableConfiguration) as caught:
        search(loaded, folder, start_backend=backend, open_study=MemoryStudies(), clock=backend._clock)
    said = str(caught.value)
    assert said.startswith(
        f"{tmp_path}/mine.yaml:4:9: training.loss: your training code fails with the baseline settings: "
    )
    assert FAILURE.reason in said
    assert said.endswith(f". Full traceback: {folder.trials / '0000.txt'}")
    assert folder.traceback(0).read_text() == f"{FAILURE.traceback}\n"


def test_a_strategy_that_cannot_be_built(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SPEC + 'strategy: {factory: "json:laods"}\n')
    with pytest.raises(SpecError) as caught:
        look_around(load_spec(path), 60.0, start_backend=Failing(None))
    assert str(caught.value).startswith(f"{path}:6:21: strategy.factory: json:laods: AttributeError")
