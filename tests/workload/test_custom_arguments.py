"""A prepared workload with values of the spec's own knobs in place of the spec's own arguments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotune.errors import WorkloadError
from autotune.spec import Spec
from autotune.workload import prepare

MODEL = """
from torch import nn
def build(width, bias=True):
    return nn.Linear(width, 4, bias=bias)
"""
FOREACH = {"foreach": {"values": [True, False], "arg": "training.optimizer.foreach"}}


def knobs(**args: str) -> dict[str, Any]:
    return {"custom": {name: {"values": [1], "arg": arg} for name, arg in args.items()}}


@pytest.fixture
def spec_of(make_spec: Callable[..., Spec], module: Callable[[str], str]) -> Callable[..., Spec]:
    def make(search: dict[str, Any]) -> Spec:
        return make_spec(model={"factory": f"{module(MODEL)}:build", "args": {"width": 3}}, search=search)

    return make


def test_what_is_touched_is_prepared_again_and_the_rest_is_shared(spec_of: Callable[..., Spec], tmp_path: Path) -> None:
    plain = prepare(spec_of(knobs(bias="model.args.bias")), tmp_path)
    tuned = plain.with_custom({"bias": False})
    assert [len(list(prepared.model().parameters())) for prepared in (plain, tuned)] == [2, 1]
    assert tuned.data is plain.data
    assert tuned.build_optimizer is plain.build_optimizer
    assert plain.with_custom({}) is plain


def test_the_optimizer_takes_its_argument(spec_of: Callable[..., Spec], tmp_path: Path) -> None:
    plain = prepare(spec_of({"custom": FOREACH}), tmp_path)
    for value in (True, False):
        tuned = plain.with_custom({"foreach": value})
        assert tuned.optimizer(tuned.model()).defaults["foreach"] is value


def test_an_argument_that_the_optimizer_lacks(spec_of: Callable[..., Spec], tmp_path: Path) -> None:
    plain = prepare(spec_of(knobs(rate="training.optimizer.momentun")), tmp_path)
    with pytest.raises(WorkloadError, match=r"no argument 'momentun'; did you mean momentum.*search.custom: rate 1"):
        plain.with_custom({"rate": 1})


def test_an_argument_that_the_factory_lacks(spec_of: Callable[..., Spec], tmp_path: Path) -> None:
    plain = prepare(spec_of(knobs(depth="model.args.depth")), tmp_path)
    with pytest.raises(WorkloadError, match=r"unexpected keyword argument 'depth' \(with search.custom: depth 1\)"):
        plain.with_custom({"depth": 1}).model()


def test_a_knob_that_the_spec_does_not_have(spec_of: Callable[..., Spec], tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="the spec has no knob nobody"):
        prepare(spec_of({}), tmp_path).with_custom({"nobody": 1})
