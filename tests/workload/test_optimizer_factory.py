"""`training.optimizer: "package.module:build"`: groups of parameters, and optimizers of other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from autotune.errors import WorkloadError
from autotune.workload import prepare, workload_facts

CODE = """
import torch

def groups(model, lr=0.1, decay=0.5):
    weights = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    return torch.optim.AdamW(
        [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}], lr=lr
    )

def fusing(model, fused=False):
    return torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)

def swallowing(model, **options):
    return torch.optim.SGD(model.parameters(), lr=0.1)

def elsewhere(model):
    return torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1)

def closures(model):
    return torch.optim.LBFGS(model.parameters())

def nothing(model):
    pass

def broken(model):
    return {}["missing"]
"""
CPU = torch.device("cpu")


@pytest.fixture
def named(module: Any) -> str:
    return str(module(CODE))


def test_it_is_called_with_the_model(tmp_path: Path, make_spec: Any, named: str) -> None:
    prepared = prepare(make_spec(training={"optimizer": f"{named}:groups"}), tmp_path)
    model = prepared.model()
    built = prepared.optimizer(model)
    assert isinstance(built, torch.optim.AdamW)
    assert [group["weight_decay"] for group in built.param_groups] == [0.5, 0.0]
    assert {group["lr"] for group in built.param_groups} == {0.1}, "the factory's own, not the spec's default"
    assert sum(len(group["params"]) for group in built.param_groups) == len(list(model.parameters()))


def test_what_stands_beside_it_are_its_arguments(tmp_path: Path, make_spec: Any, named: str) -> None:
    optimizer = {"factory": f"{named}:groups", "lr": 0.3, "decay": 0.25}
    spec = make_spec(training={"optimizer": optimizer})
    prepared = prepare(type(spec).model_validate(spec.model_dump(mode="json", exclude_none=True)), tmp_path)
    built = prepared.optimizer(prepared.model())
    assert built.param_groups[0]["lr"] == 0.3
    assert built.param_groups[0]["weight_decay"] == 0.25


def test_its_arguments_can_be_searched(tmp_path: Path, make_spec: Any, named: str) -> None:
    search = {"custom": {"decay": {"values": [0.1, 0.2], "arg": "training.optimizer.decay"}}}
    prepared = prepare(make_spec(training={"optimizer": f"{named}:groups"}, search=search), tmp_path)
    tuned = prepared.with_custom({"decay": 0.2})
    assert tuned.optimizer(tuned.model()).param_groups[0]["weight_decay"] == 0.2


def test_an_optimizer_of_another_library(tmp_path: Path, make_spec: Any) -> None:
    optimizer = {"factory": "timm.optim:create_optimizer_v2", "opt": "lamb", "lr": 0.01}
    prepared = prepare(make_spec(training={"optimizer": optimizer}), tmp_path)
    assert type(prepared.optimizer(prepared.model())).__name__ == "Lamb"


@pytest.mark.parametrize(
    ("factory", "refusal"),
    [
        ("fusing", None),
        ("groups", "groups takes no argument 'fused'"),
        ("swallowing", "swallowing does not pass fused=True on to SGD"),
    ],
)
def test_whether_it_can_be_fused_is_found_out(
    tmp_path: Path, make_spec: Any, named: str, factory: str, refusal: str | None
) -> None:
    facts = workload_facts(prepare(make_spec(training={"optimizer": f"{named}:{factory}"}), tmp_path), CPU)
    found = facts.fused_optimizer_refusal
    assert found is None if refusal is None else found == f"{named}:{refusal}"


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("elsewhere", "returned an optimizer for parameters that its model does not have"),
        ("closures", "LBFGS evaluates the loss several times a step"),
        ("nothing", "nothing returned a NoneType, not a torch.optim.Optimizer"),
        ("broken", "broken raised KeyError: 'missing'"),
    ],
)
def test_what_is_wrong_with_it_is_told_before_the_first_trial(
    tmp_path: Path, make_spec: Any, named: str, factory: str, message: str
) -> None:
    prepared = prepare(make_spec(training={"optimizer": f"{named}:{factory}"}), tmp_path)
    with pytest.raises(WorkloadError, match=rf"^training.optimizer: {named}:.*{message}"):
        workload_facts(prepared, CPU)


def test_an_argument_that_it_does_not_take(tmp_path: Path, make_spec: Any, named: str) -> None:
    spec = make_spec(training={"optimizer": {"factory": f"{named}:groups", "momentum": 0.9}})
    with pytest.raises(WorkloadError, match=r"unexpected keyword argument 'momentum'; it is called with the model"):
        prepare(spec, tmp_path)
