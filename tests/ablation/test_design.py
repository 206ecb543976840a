"""Which cells are measured, and what drops out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.ablation import AblationBench
from support.facts import cpu_facts, cuda_facts

from autotune.ablation import Design, plan
from autotune.errors import SpecError
from autotune.records import Facts
from autotune.spec import load_spec

SPECS = Path(__file__).parents[2] / "specs"
GENERATED = "data={synthetic: {image_size: 224, storage: jpeg}}"
"""No machine of ours has their data set."""


def design(bench: AblationBench, facts: Facts | None = None, **sections: Any) -> Design:
    return plan(bench.load(**sections).spec, facts or cuda_facts())


def knobs(found: Design) -> dict[str, tuple[Any, Any]]:
    return {factor.knob: (factor.off, factor.on) for factor in found.factors}


def test_silent_it_is_the_papers_three(bench: AblationBench) -> None:
    found = design(bench)
    assert knobs(found) == {"grad_accum_steps": (1, 4), "amp_dtype": ("none", "bf16"), "pin_memory": (False, True)}
    assert [factor.label for factor in found.factors] == ["GA", "AMP", "pinning"]
    assert len(set(found.configs.values())) == 8


def test_the_effective_batch_is_the_same_in_every_cell(bench: AblationBench) -> None:
    found = design(bench)
    assert {config.effective_batch_size for config in found.configs.values()} == {128}
    assert {config.micro_batch_size for config in found.configs.values()} == {128, 32}


def test_cells_differ_in_their_factors_alone(bench: AblationBench) -> None:
    found = design(bench)
    for cell, config in found.configs.items():
        changed = set(config.differences(found.configs[found.plain])) - {"micro_batch_size"}
        assert changed == {factor.knob for factor, on in zip(found.factors, cell, strict=True) if on}


@pytest.mark.parametrize("name", ["resnet50", "vit_base_patch16_224", "efficientnet_b0"])
def test_the_papers_models_need_no_change_of_their_specs(name: str) -> None:
    facts = cuda_facts()
    found = plan(load_spec(SPECS / f"{name}.yaml", [GENERATED]).spec, facts)
    assert set(knobs(found)) == {"grad_accum_steps", "amp_dtype", "pin_memory"}
    assert len(found.configs) == 8
    assert len({config.effective_batch_size for config in found.configs.values()}) == 1


def test_without_an_accelerator_pinning_drops_out_and_says_why(bench: AblationBench) -> None:
    found = design(bench, cpu_facts())
    assert "pin_memory" not in knobs(found)
    (reason,) = (dropped for dropped in found.dropped if dropped.knob == "pin_memory")
    assert reason.reason
    assert len(found.configs) == 2 ** len(found.factors)


def test_an_older_gpu_takes_the_dtype_it_has(bench: AblationBench) -> None:
    facts = cuda_facts()
    old = facts.model_copy(update={"device": facts.device.model_copy(update={"amp_dtypes": ("fp16",)})})
    assert knobs(design(bench, old))["amp_dtype"] == ("none", "fp16")


def test_named_factors_take_the_place_of_the_silent_ones(bench: AblationBench) -> None:
    factors = {"memory_format": ["contiguous", "channels_last"], "micro_batch_size": [64, 16]}
    found = design(bench, ablation={"factors": factors})
    assert set(knobs(found)) == {"memory_format", "micro_batch_size"}
    assert {config.grad_accum_steps for config in found.configs.values()} == {2, 8}


def test_a_batch_that_cannot_be_split_so_is_said(bench: AblationBench) -> None:
    with pytest.raises(SpecError, match="3 does not divide 128"):
        design(bench, ablation={"factors": {"grad_accum_steps": [1, 3]}})


def test_where_nothing_applies_it_says_why(bench: AblationBench) -> None:
    with pytest.raises(SpecError, match="none of the techniques applies here: pin_memory"):
        design(bench, cpu_facts(), ablation={"factors": {"pin_memory": [False, True]}})


def test_a_prefetch_factor_without_workers_is_no_factor(bench: AblationBench) -> None:
    factors = {"prefetch_factor": [2, 4], "amp_dtype": ["none", "bf16"]}
    found = design(bench, ablation={"factors": factors}, baseline={"num_workers": 0})
    assert set(knobs(found)) == {"amp_dtype"}
    assert "--set baseline.num_workers" in str(found.dropped[0])
