"""`autotune.search` and `autotune.tune`: the command line's engine, from Python."""

from __future__ import annotations

import ast
import asyncio
import functools
import math
import pickle
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from support.facts import cpu_facts
from support.simulation import Clock, FormulaBackend
from support.storage import MemoryStudies
from torch.utils.data import TensorDataset

import autotune
from autotune import api
from autotune.config import TrainConfig
from autotune.errors import SpecError, StudyMismatch, WorkloadError
from autotune.importable import PickledDataset
from autotune.records import Progress, Purpose, TrialRecord
from autotune.search.identity import differences
from autotune.store import StudyFolder, read_spec_to_run
from autotune.wording import OPTIONS, TUNE, in_python

SPEC: dict[str, Any] = {
    "name": "mine",
    "model": {"timm": "resnet18"},
    "data": {"synthetic": {"image_size": 64}},
    "training": {"effective_batch_size": 128},
    "budget": "5m",
    "stability": {"soak_steps": 20},
    "strategy": {"name": "random"},
}


@pytest.fixture
def simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FormulaBackend:
    """Studies on a machine in numbers, in a folder of their own."""
    backend = FormulaBackend(Clock(), cpu_facts())
    real, studies = api.run_search, MemoryStudies()

    def run(loaded: Any, folder: Any, *, began_s: float, **options: Any) -> Any:
        return real(loaded, folder, start_backend=backend, clock=backend._clock, open_study=studies, **options)

    monkeypatch.setattr(api, "run_search", run)
    monkeypatch.chdir(tmp_path)
    return backend


def from_file(spec: dict[str, Any]) -> Path:
    path = Path("mine.yaml")
    path.write_text(yaml.safe_dump(spec))
    return path


@pytest.mark.parametrize("given", [from_file, dict, autotune.Spec.model_validate], ids=["file", "values", "models"])
def test_a_spec_in_any_form(simulated: FormulaBackend, given: Callable[[dict[str, Any]], Any]) -> None:
    result = autotune.search(given(SPEC))
    assert result.folder == "studies/mine"
    assert autotune.load(result.folder).speedup > 1
    assert isinstance(result, autotune.SearchResult)


def test_the_budget_and_the_place_are_the_callers(simulated: FormulaBackend) -> None:
    result = autotune.search(SPEC, budget="3m", out="elsewhere")
    assert result.folder == "elsewhere"
    assert result.best["search"]["budget_s"] == 180


def test_callbacks_see_every_run(simulated: FormulaBackend) -> None:
    records: list[TrialRecord] = []
    snapshots: list[Progress] = []
    autotune.search(SPEC, progress=snapshots.append, on_trial=records.append)
    assert [record.number for record in records] == list(range(len(simulated.requests)))
    assert {Purpose.BASELINE, Purpose.SEARCH, Purpose.CONFIRM} <= {record.purpose for record in records}
    assert len(snapshots) > len(records)


def test_an_exception_in_a_callback_ends_the_search_and_the_same_call_goes_on(simulated: FormulaBackend) -> None:
    def stop(record: TrialRecord) -> None:
        if record.number == 4:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        autotune.search(SPEC, on_trial=stop)
    before = len(simulated.requests)
    first: list[int] = []
    autotune.search(SPEC, on_trial=lambda record: first.append(record.number))
    assert first[0] == before == 5


def test_it_works_beside_a_running_event_loop(simulated: FormulaBackend) -> None:
    async def cell() -> Any:
        return autotune.search(SPEC)

    assert asyncio.run(cell()).best["study"] == "mine"


def test_a_wrong_spec_says_where(simulated: FormulaBackend) -> None:
    with pytest.raises(SpecError, match=r"budget"):
        autotune.search(SPEC | {"budget": "soon"})


def build() -> torch.nn.Module:
    return torch.nn.Linear(4, 2)


def data() -> TensorDataset:
    return TensorDataset(torch.zeros(8, 4), torch.zeros(8, dtype=torch.long))


def loss(model: Any, batch: Any) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])


def test_tune_names_what_its_trials_import(simulated: FormulaBackend) -> None:
    result = autotune.tune(build, data, loss, budget="4m", training={"effective_batch_size": 128})
    spec = yaml.safe_load((Path(result.folder) / "spec.yaml").read_text())
    assert result.folder == "studies/build"
    assert spec["model"]["factory"] == "test_api:build"
    assert spec["data"]["factory"] == "test_api:data"
    assert spec["training"]["loss"] == "test_api:loss"


def test_two_projects_with_functions_of_the_same_names_do_not_mix(
    simulated: FormulaBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Path(__file__).parent
    for origin in (own, tmp_path / "other"):
        monkeypatch.setattr(api, "read_origin", lambda _folder, origin=origin: origin)
        ours = autotune.tune(build, data, loss, budget="4m", training={"effective_batch_size": 128})
        assert (ours.folder == "studies/build") is (origin == own)
    assert re.fullmatch(r"studies/build-[0-9a-f]{6}", ours.folder)
    with pytest.raises(StudyMismatch, match=r"holds a study of functions in .*other; give another name= or out="):
        autotune.tune(build, data, loss, name="build")


def test_a_result_says_what_it_is_worth(simulated: FormulaBackend) -> None:
    result = autotune.search(SPEC | {"budget": "4m"})
    assert result.speedup == result.best["speedup"]["ratio"] > 1
    assert result.config == TrainConfig.from_dict(result.best["config"])
    shown = result._repr_html_()
    assert f"{result.speedup:.2f}× the baseline" in shown
    assert "<td>amp_dtype</td>" in shown
    noted = result.model_copy(update={"notes": ("a <b>note</b>",)})
    lines = str(noted).splitlines()
    assert lines[0] == f"mine: {result.emitted.worth}"
    assert f"  amp_dtype: {result.config.amp_dtype}" in lines
    assert lines[-2:] == ["- a <b>note</b>", "studies/mine"]
    assert repr(result) == f"SearchResult('studies/mine': {result.emitted.worth})"
    assert "<li>a &lt;b&gt;note&lt;/b&gt;</li>" in noted._repr_html_()


def test_errors_name_arguments_and_no_options(simulated: FormulaBackend) -> None:
    autotune.search(SPEC | {"budget": "4m"})
    with pytest.raises(StudyMismatch) as caught:
        autotune.search(SPEC | {"budget": "4m", "training": {"effective_batch_size": 64}})
    assert "start over with fresh=True (the old study is kept), or " in str(caught.value)
    assert "out=" in str(caught.value)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": "3s"}, "budget: 3s is too short"),
        ({"training": {"optimzer": "sgd"}}, "training.optimzer: unknown key; did you mean optimizer?"),
        ({"search": {"num_workers": [0, "two"]}}, "search.num_workers.1: must be a whole number, not 'two'"),
    ],
)
def test_tune_has_no_spec_to_speak_of(simulated: FormulaBackend, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        autotune.tune(build, data, loss, **settings)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("model.factory: mine:build raised ValueError", "model_fn: mine:build raised ValueError"),
        ("data.factory: autotune.workload.pickled:load raised OSError", "dataset: reading it back raised OSError"),
        ("data: the data set is empty", "dataset: the data set is empty"),
        ("spec: training.loss: must be", "loss_fn: must be"),
        ("training.optimizer: torch.optim has none", "training.optimizer: torch.optim has none"),
        ("mine keeps it; use --fresh, or --out", "mine keeps it; use fresh=True, or out="),
        ("or train on --set data='{synthetic: {}}'", "or train on data: {synthetic: {}}"),
        ("--storage: the driver is missing", "storage.yaml: the driver is missing"),
        ("Run the same command with a larger --budget.", "Make the same call with a larger budget."),
    ],
)
def test_paths_of_the_spec_that_tune_makes_are_its_arguments(message: str, said: str) -> None:
    assert in_python(message, TUNE) == said


def test_every_option_that_a_search_can_name_has_an_argument() -> None:
    package = Path(autotune.__file__).parent
    core = [*package.glob("*.py"), *(path for part in _CORE for path in (package / part).rglob("*.py"))]
    texts = (text for path in core for text in _messages(ast.parse(path.read_text())))
    named = {option for text in texts for option in re.findall(r"(?<![\w-])--([a-z][a-z-]*)", text)}
    assert named - OPTIONS.keys() <= {"set", "head", "shm-size"}, "--set, and options of other programs"


_CORE = ("search", "execution", "spec", "knobs", "training", "workload", "trial", "measure", "records", "stats")


def _messages(module: ast.Module) -> Iterator[str]:
    docstrings = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


@pytest.mark.parametrize("call", ["tune", "search"])
def test_a_call_without_a_guard_says_so_in_a_trial(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name="autotune.trial.__main__"))
    arguments = (build, data, loss) if call == "tune" else (SPEC,)
    with pytest.raises(WorkloadError, match='put the call under if __name__ == "__main__":'):
        getattr(autotune, call)(*arguments)


UNGUARDED = """
import autotune
import torch
from torch.utils.data import TensorDataset

def build():
    return torch.nn.Linear(4, 2)

def loss(model, batch):
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

def data():
    return TensorDataset(torch.zeros(64, 4), torch.zeros(64, dtype=torch.long))

autotune.tune(build, data, loss, budget="30s")
"""


@pytest.mark.slow
def test_a_script_without_a_guard_ends_with_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(UNGUARDED)
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert 'put the call under if __name__ == "__main__":' in done.stderr.splitlines()[-1]


def test_a_class_of_the_running_script_is_imported_by_the_script_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_script.py").write_text("class Own(list): pass")
    main = ModuleType("__main__")
    main.__file__ = str(tmp_path / "own_script.py")
    exec("class Own(list): pass", vars(main))
    monkeypatch.setitem(sys.modules, "__main__", main)
    pickled = PickledDataset(main.Own([1, 2]))
    assert pickled.roots == {tmp_path}
    monkeypatch.syspath_prepend(tmp_path)
    with pickled.written(path := pickled.beside(tmp_path / "study")):
        assert type(pickle.loads(path.read_bytes())).__module__ == "own_script"
    main.__file__ = "<stdin>"
    with pytest.raises(SpecError, match=r"dataset: it is defined in this session, which trials cannot import; write"):
        PickledDataset(main.Own())


def test_tune_takes_a_data_set_itself(simulated: FormulaBackend) -> None:
    from autotune.workload.pickled import load

    result = autotune.tune(build, data(), loss, name="mine")
    spec = yaml.safe_load((Path(result.folder) / "spec.yaml").read_text())
    assert len(load(**spec["data"]["args"])) == 8
    with pytest.raises(ValueError, match="has changed since"):
        load(**(spec["data"]["args"] | {"sha256": "0"}))


@pytest.mark.parametrize("is_within", [False, True])
def test_the_data_set_of_a_study_that_was_moved_is_found(simulated: FormulaBackend, is_within: bool) -> None:
    from autotune.workload.pickled import load

    before = Path(autotune.tune(build, data(), loss, name="mine").folder).absolute()
    [file] = before.parent.glob("*.pkl")
    moved = before.rename(file.parent.parent / "renamed")
    args = read_spec_to_run(StudyFolder(moved))["data"]["args"]
    assert args["path"] == str(file), "it is where it was"
    there = file.rename((moved if is_within else moved.parent) / file.name)
    with pytest.raises(FileNotFoundError, match=r"is gone; put it back, or beside the study's folder"):
        load(**args)
    args = read_spec_to_run(StudyFolder(moved))["data"]["args"]
    assert args["path"] == str(there)
    assert len(load(**args)) == 8


def test_a_data_set_that_lies_elsewhere_is_the_same() -> None:
    before, moved = ({"args": {"path": path, "sha256": "1"}} for path in ("/a", "/b"))
    assert differences(before, moved) == []
    other = {"args": {"path": "/b", "sha256": "2"}}
    assert differences(before, other) == ["args.path: was /a, is /b", "args.sha256: was 1, is 2"]


def test_a_call_that_is_refused_leaves_the_earlier_study_its_data_set(simulated: FormulaBackend) -> None:
    from autotune.workload.pickled import load

    kept = autotune.tune(build, data(), loss, name="mine")
    with pytest.raises(StudyMismatch):
        autotune.tune(build, TensorDataset(torch.ones(9, 4)), loss, name="mine")
    spec = yaml.safe_load((Path(kept.folder) / "spec.yaml").read_text())
    assert len(load(**spec["data"]["args"])) == 8
    assert len(list(Path("studies").glob("*.pkl"))) == 1, "what no study uses is gone"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((build, torch.utils.data.DataLoader(data()), loss), r"dataset: give the data set, not a DataLoader"),
        ((build, "mine:data", loss), r"dataset: give a data set, or a function that builds it, not 'mine:data'"),
        ((torch.nn.Linear(2, 2), data, loss), r"model_fn: give a function that builds the model, not a Linear: each"),
        ((build, data, None), r"loss_fn: give a function, not None"),
        ((lambda: None, data, loss), r"model_fn: .*lambda.* is not defined at the top level"),
        ((build, data, functools.partial(loss)), r"loss_fn: functools\.partial.* is not defined"),
        ((build, (n for n in range(3)), loss), r"dataset: .*generator"),
        ((build, data, torch.nn.utils.parameters_to_vector), None),
    ],
)
def test_what_another_process_cannot_import_is_refused(
    simulated: FormulaBackend, arguments: tuple[Any, ...], message: str | None
) -> None:
    if message is None:  # an installed function is found from anywhere
        autotune.tune(*arguments)
        return
    with pytest.raises(SpecError, match=message):
        autotune.tune(*arguments)


SCRIPT = """
import autotune
import torch
from torch import nn
from torch.utils.data import TensorDataset

class Own(TensorDataset):
    pass

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 4))

def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])

def stop(record):
    if record.number == 2:
        raise KeyboardInterrupt

if __name__ == "__main__":
    torch.manual_seed(0)
    targets = torch.randint(0, 4, (512,))
    data = Own(torch.randn(512, 3, 8, 8) + targets[:, None, None, None], targets)
    try:
        autotune.tune(
            build, data, loss, budget="1m", on_trial=stop,
            training={"effective_batch_size": 32, "optimizer": {"name": "sgd", "lr": 0.5}},
            baseline={"micro_batch_size": 4},
            search={"micro_batch_size": [4, 8, 16, 32], "num_workers": 0, "compile": "none", "num_threads": 1},
        )
    except autotune.search.Interrupted as interruption:
        print(autotune.load(interruption.result.folder).micro_batch_size)
"""


@pytest.mark.slow
def test_a_script_tunes_its_own_functions(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    study = StudyFolder(tmp_path / "studies" / "build")
    best = study.read_best()
    assert best is not None
    assert int(done.stdout) == best["config"]["micro_batch_size"]
    records = study.read_trials()
    assert [record.number for record in records] == [0, 1, 2]
    for record in records:
        assert record.result.steps is not None
        losses = record.result.steps.losses
        assert losses[0] == pytest.approx(math.log(4), abs=0.7), "four classes, nothing learnt yet"
        assert statistics.fmean(losses[-5:]) < 0.75 * losses[0], "its own data, model and loss"


@pytest.mark.parametrize("criterion", [torch.nn.CrossEntropyLoss(), torch.nn.functional.cross_entropy])
def test_a_criterion_is_no_loss_function(criterion: Any) -> None:
    with pytest.raises(
        SpecError, match=r"loss_fn: \w+ is a criterion, called with outputs and targets; write a function"
    ):
        autotune.tune(torch.nn.Identity, TensorDataset(torch.zeros(4)), criterion)


def pad(samples: Any) -> Any:
    return torch.utils.data.default_collate(samples)


def test_tune_takes_a_function_that_makes_batches(simulated: FormulaBackend) -> None:
    result = autotune.tune(build, data, loss, collate_fn=pad, name="mine")
    spec = yaml.safe_load((Path(result.folder) / "spec.yaml").read_text())
    assert spec["data"] == {"factory": "test_api:data", "args": {}, "collate": "test_api:pad"}
    with pytest.raises(SpecError, match=r"collate_fn: .*lambda.* is not defined at the top level"):
        autotune.tune(build, data, loss, collate_fn=lambda samples: samples, name="other")
