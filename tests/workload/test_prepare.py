"""The two phases: what preparing leaves behind, and what a trial builds from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from autotune.training import build_dataloader
from autotune.workload import prepare, workload_facts

CPU = torch.device("cpu")


CODE = """
import json, os, sys, threading
from pathlib import Path
from torch.utils._python_dispatch import TorchDispatchMode
import torch, torch._dynamo, autotune.workload  # torch 2.6 runs a few tiny operators when it imports the former
from autotune.config import TrainConfig
from autotune.spec import Spec
from autotune.training import TrainStep, build_dataloader

operators = []
class Watch(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not str(func).startswith("torchvision._cuda_version"):  # its import asks; nothing is computed
            operators.append(str(func))
        return func(*args, **(kwargs or {}))

tasks = lambda: len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 0
before = tasks()
with Watch():
    for storage in ("memory", "jpeg"):
        data = {"synthetic": {"samples": 64, "classes": 4, "image_size": 32, "storage": storage}}
        spec = Spec.model_validate({"model": {"timm": "resnet10t"}, "data": data, "budget": "60s"})
        prepared = autotune.workload.prepare(spec, Path(sys.argv[1]))
print(json.dumps([tasks() - before, threading.active_count(), torch.cuda.is_initialized(), operators]), flush=True)

def trial():
    torch.manual_seed(0)
    config, device = TrainConfig(micro_batch_size=16, num_workers=1), torch.device("cpu")
    model = prepared.model()
    step = TrainStep(model, prepared.optimizer(model), prepared.loss_fn(), config, device=device)
    for batch in build_dataloader(prepared.dataset(), config, device=device, seed=0):
        assert torch.isfinite(step(batch).loss)
    print("trained", flush=True)

for _ in range(2 if hasattr(os, "fork") else 0):
    pid = os.fork()
    if pid == 0:
        trial()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Lines of a process that prepares, and forks two trials."""
    command = [sys.executable, "-c", CODE, str(tmp_path_factory.mktemp("prepared"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_preparing_runs_nothing_that_a_fork_would_lose(said: list[str]) -> None:
    assert json.loads(said[0]) == [0, 1, False, []]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_trial_trains_from_what_was_prepared(said: list[str]) -> None:
    assert said[1:] == ["trained", "trained"]


def test_a_timm_model_takes_its_classes_from_the_data_unless_told(tmp_path: Path, make_spec: Any) -> None:
    model = prepare(make_spec(), tmp_path).model()
    assert model.num_classes == 4
    told = make_spec(model={"timm": "resnet18", "args": {"num_classes": 7}})
    assert prepare(told, tmp_path).model().num_classes == 7


def test_everything_of_ones_own_lies_beside_the_spec(tmp_path: Path, make_spec: Any, module: Any) -> None:
    name = module(
        "import torch\n"
        "class Nested:\n"
        "    @staticmethod\n"
        "    def build(width): return torch.nn.Linear(width, 2)\n"
        "def data(count): return [(torch.full((3,), float(i)), i % 2) for i in range(count)]\n"
        "def loss(model, batch): return model(batch[0]).square().sum(), len(batch[0])\n"
    )
    spec = make_spec(
        model={"factory": f"{name}:Nested.build", "args": {"width": 3}},
        data={"factory": f"{name}:data", "args": {"count": 10}},
        training={"loss": f"{name}:loss", "optimizer": {"name": "AdamW", "lr": 0.1, "betas": [0.5, 0.9]}},
    )
    prepared = prepare(spec, tmp_path)
    model = prepared.model()
    optimizer = prepared.optimizer(model, fused=True)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["fused"] is True
    from autotune.config import TrainConfig

    batch = next(iter(build_dataloader(prepared.dataset(), TrainConfig(micro_batch_size=5), device=CPU)))
    assert prepared.loss_fn()(model, batch)[1] == 5
    facts = workload_facts(prepared, CPU)
    assert (facts.parameters, facts.dataset_samples, facts.input_shape) == (8, 10, (3,))
    assert facts.activation_checkpointing_refusal == "Linear has no method for it"
