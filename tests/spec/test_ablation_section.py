"""The section `ablation` of a spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from autotune.errors import SpecError
from autotune.spec import load_spec

SPEC: dict[str, Any] = {"model": {"timm": "resnet18"}, "data": {"synthetic": {}}, "budget": "1m"}


def load(folder: Path, ablation: Any, **sections: Any) -> Any:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(SPEC | {"ablation": ablation} | sections))
    return load_spec(path).spec.ablation


def test_factors_are_named_with_their_levels(tmp_path: Path) -> None:
    found = load(tmp_path, {"factors": {"amp_dtype": ["none", "bf16"], "num_workers": [0, 2]}, "rounds": 5})
    assert found.factors.named() == {"amp_dtype": ("none", "bf16"), "num_workers": (0, 2)}
    assert found.rounds == 5


@pytest.mark.parametrize(
    ("ablation", "message"),
    [
        ({"factors": {"amp_dtyp": ["none", "bf16"]}}, "did you mean amp_dtype?"),
        ({"factors": {"amp_dtype": ["bf16"]}}, "give two levels, the plain one first"),
        ({"factors": {"num_workers": [0, 1, 2]}}, "give two levels, the plain one first"),
        ({"factors": {"num_workers": [1, 1]}}, "the two levels are the same"),
        ({"factors": {"num_workers": 2}}, "give two levels, the plain one first"),
        ({"factors": {"pin_memory": [False, "x"]}}, "pin_memory"),
        (
            {"factors": {"grad_accum_steps": [1, 2], "micro_batch_size": [8, 4]}},
            "give this or grad_accum_steps, not both",
        ),
        ({"rounds": 2}, "must be at least 3, not 2"),
        ({"factors": {"custom": {"impl": ["a", "b"]}}}, "unknown knob"),
    ],
)
def test_mistakes_are_said_with_their_place(tmp_path: Path, ablation: Any, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, ablation)
    (problem,) = caught.value.problems
    assert message in problem
    assert "spec.yaml:" in problem


def test_too_many_factors(tmp_path: Path) -> None:
    factors = {
        "amp_dtype": ["none", "bf16"],
        "num_workers": [0, 2],
        "pin_memory": [False, True],
        "compile": ["none", "default"],
        "fused_optimizer": [False, True],
        "num_threads": [1, 2],
    }
    with pytest.raises(SpecError, match="6 factors have 64 cells a round"):
        load(tmp_path, {"factors": factors})


def test_custom_knobs_can_be_factors(tmp_path: Path) -> None:
    custom = {"impl": {"values": ["a", "b"], "arg": "model.args.impl"}}
    found = load(tmp_path, {"factors": {"custom": {"impl": ["a", "b"]}}}, search={"custom": custom})
    assert found.factors.named() == {"impl": ("a", "b")}
