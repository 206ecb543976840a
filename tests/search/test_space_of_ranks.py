"""Spaces of trials that several ranks train."""

from __future__ import annotations

from typing import Any

import pytest
from support.facts import cpu_facts, cuda_facts

from autotune.config import RANK_KNOBS
from autotune.errors import SpecError
from autotune.search.build_space import build_space
from autotune.search.space import Space
from autotune.spec import parse_spec


def space_of(
    ranks: int, batch: Any = "free", *, baseline: Any = None, search: Any = None, samples: int = 9999
) -> Space:
    whole = {
        "model": {"timm": "resnet18"},
        "data": {"synthetic": {"image_size": 64}},
        "budget": "10m",
        "training": {"effective_batch_size": batch},
        "baseline": baseline or {},
        "search": search or {},
        "execution": {"ranks_per_trial": ranks},
    }
    return build_space(parse_spec(whole, "."), cuda_facts(dataset_samples=samples))


def values(space: Space, knob: str) -> tuple[Any, ...]:
    return next((dimension.values for dimension in space.dimensions if dimension.knob == knob), ())


def test_ranks_multiply_the_effective_batch() -> None:
    space = space_of(4, 256)
    assert space.baseline.effective_batch_size == 256
    assert (space.baseline.micro_batch_size, space.baseline.grad_accum_steps) == (32, 2)
    assert {
        space.config_at({**space.baseline_indices, "micro_batch_size": place}).effective_batch_size
        for place in range(len(values(space, "micro_batch_size")))
    } == {256}
    assert max(values(space, "micro_batch_size")) == 64


def test_the_data_set_has_to_feed_all_ranks() -> None:
    space = space_of(4, samples=200)
    assert max(values(space, "micro_batch_size")) * 4 <= 200
    assert space.baseline.effective_batch_size <= 200


def test_knobs_of_several_ranks_are_searched_with_several_only() -> None:
    alone, together = space_of(1), space_of(2)
    for knob in RANK_KNOBS:
        assert values(alone, knob) == ()
        assert len(values(together, knob)) > 1
        assert alone.baseline.value(knob) is None
    assert (together.baseline.data_parallel, together.baseline.bucket_cap_mb) == ("ddp", 25)
    assert not any(dropped.knob in RANK_KNOBS for dropped in alone.dropped)


def test_a_knob_has_a_value_exactly_where_it_matters() -> None:
    space = space_of(2, search={"grad_accum_steps": [1, 2], "micro_batch_size": [8, 16]})
    seen = set()
    for micro in range(2):
        for accum in range(2):
            for kind in range(2):
                point = {**space.baseline_indices, "micro_batch_size": micro, "grad_accum_steps": accum}
                config = space.config_at({**point, "data_parallel": kind, "amp_dtype": 1, "memory_format": 1})
                ddp = config.data_parallel == "ddp"
                assert (config.bucket_cap_mb is not None) == ddp
                assert (config.static_graph is not None) == (ddp and config.grad_accum_steps == 1)
                assert config.memory_format == ("channels_last" if ddp else "contiguous")
                assert config.world_size == 2
                seen.add(config)
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"baseline": {"bucket_cap_mb": 5}}, "baseline.bucket_cap_mb.*ranks_per_trial"),
        ({"baseline": {"data_parallel": "fsdp"}}, "baseline.data_parallel.*ranks_per_trial"),
        ({"model": {"timm": "resnet18", "sync_batch_norm": True}}, "model.sync_batch_norm.*ranks_per_trial"),
        ({"training": {"effective_batch_size": 250}, "execution": {"ranks_per_trial": 4}}, "× 4 ranks.*250"),
        (
            {
                "training": {"effective_batch_size": 64},
                "baseline": {"micro_batch_size": 32, "grad_accum_steps": 2},
                "execution": {"ranks_per_trial": 2},
            },
            "× 2 ranks is 128",
        ),
        ({"execution": {"ranks_per_trial": 0}}, "execution.ranks_per_trial"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(sections: dict[str, Any], message: str) -> None:
    whole = {"model": {"timm": "resnet18"}, "data": {"synthetic": {}}, "budget": "10m", **sections}
    with pytest.raises(SpecError, match=message):
        parse_spec(whole, ".")


def test_a_listed_knob_of_several_ranks_drops_out_with_its_reason_where_there_is_one() -> None:
    space = space_of(1, search={"bucket_cap_mb": [5, 25]})
    assert any("ranks_per_trial" in str(dropped) for dropped in space.dropped)
    assert space.baseline.bucket_cap_mb is None


def test_on_a_cpu_too() -> None:
    spec = parse_spec(
        {"model": {"timm": "resnet18"}, "data": {"synthetic": {}}, "budget": "1m", "execution": {"ranks_per_trial": 2}},
        ".",
    )
    assert build_space(spec, cpu_facts()).baseline.world_size == 2
