"""A search on a real Ray cluster, two nodes on this machine, one of which dies in the middle."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from autotune.config import TrainConfig
from autotune.errors import EnvironmentFailure, WorkloadError
from autotune.execution import start_all
from autotune.execution.ray_cluster import RayCluster
from autotune.execution.ray_node import code_folder
from autotune.records import Phase, Progress, Purpose, TrialRecord, TrialRequest, TrialStatus
from autotune.search import Interrupted, Listener, search
from autotune.spec import load_spec, parse_spec
from autotune.store import StudyFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ray = pytest.importorskip("ray")
BUDGET_S = 90.0
CODE = """
import os, time
import torch
from torch import nn
from torch.utils.data import Dataset

OK, SEGFAULT, RAISE = 16, 3, 5

class Model(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 4))
    def forward(self, inputs):
        if inputs.shape[0] == SEGFAULT:
            os.kill(os.getpid(), 11)
        if inputs.shape[0] == RAISE:
            raise ValueError("the 7th layer is missing")
        time.sleep(0.005)
        return self.layers(inputs)

class Points(Dataset):
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(512, 16, generator=generator)
    def __len__(self):
        return 512
    def __getitem__(self, index):
        return self.inputs[index], int(self.inputs[index].argmax()) % 4

def build_model(width=64):
    return Model(width)

def build_data():
    return Points()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    # The head runs no trial: the cluster ends with it, and any node that runs trials may die.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder whose module no node can import by itself."""
    (tmp_path / "code_of_my_own.py").write_text(CODE)
    return tmp_path


def spec(cluster: Any, **sections: Any) -> dict[str, Any]:
    return {
        "model": {"factory": "code_of_my_own:build_model"},
        "data": {"factory": "code_of_my_own:build_data"},
        "training": {"optimizer": {"name": "sgd", "lr": 0.05}},
        "budget": f"{BUDGET_S:.0f}s",
        "device": "cpu",
        "baseline": {"micro_batch_size": 8},
        "search": {
            "micro_batch_size": [8, 16, 32, 64],
            "grad_accum_steps": [1, 2],
            "num_workers": 0,
            "prefetch_factor": 2,
            "compile": "none",
            "amp_dtype": "none",
        },
        "stability": {"soak_steps": 5},
        "execution": {"backend": "ray", "address": cluster.address, "uneven_nodes": "normalise"},
        **sections,
    }


def resolved(cluster: Any, code: Path, **sections: Any) -> dict[str, Any]:
    return parse_spec(spec(cluster, **sections), code).model_dump(mode="json", exclude_none=True)


def request(size: int) -> TrialRequest:
    return TrialRequest(config=TrainConfig(micro_batch_size=size), seed=0, time_limit_s=0.5, max_blocks=3)


def run(backend: Any, size: int) -> Any:
    return backend.run(request(size), deadline_s=30, on_event=lambda _event: None)


def test_a_trial_that_breaks_is_data_on_a_node_too(cluster: Any, code: Path) -> None:
    backend = start_all(resolved(cluster, code), code)
    try:
        facts = backend.facts(60)
        assert facts.workload.dataset_samples == 512
        assert backend.slots == 2
        first = run(backend, 16)
        assert first.status is TrialStatus.OK
        assert first.node is not None
        crashed, failed, healthy = run(backend, 3), run(backend, 5), run(backend, 16)
    finally:
        backend.close()
    assert crashed.status is TrialStatus.CRASHED
    assert "SIGSEGV" in crashed.failure.reason
    assert failed.status is TrialStatus.FAILED
    assert "the 7th layer is missing" in failed.failure.reason
    assert healthy.status is TrialStatus.OK
    assert healthy.node == first.node, "what runs alone runs where the first was kept"


def test_data_that_no_node_has_is_said_of_each_before_the_first_trial(cluster: Any, code: Path) -> None:
    there = {"image_folder": {"path": "images"}}
    backend = start_all(resolved(cluster, code, data=there), code)
    try:
        with pytest.raises(WorkloadError, match=rf"node \S+: data\.image_folder.*{code / 'images'}") as caught:
            backend.facts(60)
    finally:
        backend.close()
    assert len(caught.value.problems) == 2


def test_what_a_task_raises_is_its_nodes_problem(cluster: Any, code: Path) -> None:
    def divide(_slots: int, number: int) -> float:
        return 1 / number

    joined = RayCluster(resolved(cluster, code), None)
    try:
        nodes = joined.nodes()
        problems = joined.on_each(nodes, divide, 0, deadline_s=30)
        answers = joined.on_each(nodes, divide, 1, deadline_s=30)
    finally:
        joined.close()
    assert {answer["problem"] for answer in problems.values()} == {"ZeroDivisionError: division by zero"}
    assert list(answers.values()) == [1.0] * len(nodes)


def test_a_worker_looks_for_no_module_in_the_folder_of_the_search(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    joined = RayCluster(spec(cluster), None)
    try:
        [paths] = joined.on_each(joined.nodes()[:1], lambda _slots: sys.path, deadline_s=60.0).values()
    finally:
        joined.close()
    assert str(tmp_path) not in paths
    assert len(paths) > 3


def test_a_node_dies_in_the_middle_and_the_study_goes_on_up_to_its_rounds(cluster: Any, code: Path) -> None:
    """Once a round has been measured on the node that is left, nothing more is to be seen: whether the rounds are
    clear before the budget is over depends on how busy the machine is."""
    (code / "mine.yaml").write_text(yaml.safe_dump(spec(cluster)))
    lost: list[Phase] = []
    kept_then: list[str] = []
    folder = StudyFolder(code / "study")

    def kill_one(record: TrialRecord) -> None:
        if record.round is not None and record.round >= 2 and record.number > 5:
            raise KeyboardInterrupt
        if record.number == 3:  # a search has six trials at least: what is lost is one of them
            kept_then.extend(path.name for path in sorted(folder.trials.glob("*.json")))
            home = folder.read_trials()[0].result.node.partition("/")[2]
            doomed = next(node for node in cluster.worker_nodes if node.node_id.startswith(home))
            cluster.remove_node(doomed, allow_graceful=False)

    def listen(progress: Progress) -> None:
        if "a trial was lost" in progress.message:
            lost.append(progress.phase)

    began_s = time.monotonic()
    listener = Listener(on_trial=kill_one, on_progress=listen)
    try:
        result = search(load_spec(code / "mine.yaml"), folder, began_s=began_s, listener=listener)
    except Interrupted as interrupted:
        assert interrupted.result is not None
        result = interrupted.result
    assert result.best["search"]["elapsed_s"] <= BUDGET_S
    assert folder.best.exists()
    assert result.best["measured"]["samples_per_s"] > 0
    assert "trials run on 2 of 2 nodes, 2 at a time" in result.notes
    records = folder.read_trials()
    assert Purpose.CONFIRM in {record.purpose for record in records}
    assert {path.name for path in folder.trials.glob("*.json")} >= set(kept_then)
    assert len(kept_then) == 4
    assert len({record.result.node for record in records}) == 2
    after = {record.result.node for record in records if record.number > 4}  # another ran when it died
    assert len(after) == 1, "on the one that is left"
    trials = optuna.load_study(study_name="autotune", storage=f"sqlite:///{folder.database}").get_trials()
    assert len([trial for trial in trials if trial.state is TrialState.FAIL]) == lost.count(Phase.SEARCHING)
    told = [trial.number for trial in trials if trial.state is not TrialState.FAIL]
    assert told == sorted(record.optuna_trial for record in records if record.optuna_trial is not None)


def test_a_worker_stands_where_its_code_was_unpacked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "_ray_pkg"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PWD", str(folder))
    assert code_folder() == folder
    folder.rmdir()
    folder.mkdir()
    (folder / "code_of_my_own.py").touch()
    assert (code_folder() / "code_of_my_own.py").exists()
    assert Path.cwd() == folder, "and so do the processes that it starts"


def test_where_there_is_no_cluster(code: Path) -> None:
    nowhere = {"execution": {"backend": "ray", "address": "127.0.0.1:1"}}
    with pytest.raises(EnvironmentFailure, match=r"no Ray cluster at 127\.0\.0\.1:1.*ray start --head"):
        start_all({"model": {}, "data": {}, **nowhere}, code)


def test_where_there_is_no_ray(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EnvironmentFailure, match=r"pip install 'autotune-train\[ray\]'"):
        start_all({"model": {}, "data": {}, "execution": {"backend": "ray"}}, code)
