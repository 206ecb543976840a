"""The first configurations after the baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.facts import cpu_facts, cuda_facts

from autotune.config import TrainConfig
from autotune.records import Facts
from autotune.search.build_space import build_space
from autotune.search.seeds import MOST_SEEDS, expert_seeds
from autotune.search.space import Space
from autotune.spec import load_spec, parse_spec
from autotune.spec.model import EffectiveBatchRange, allows_effective_batch

QUICKSTART = Path(__file__).parents[2] / "specs" / "quickstart.yaml"
MACHINES = {
    "cpu": cpu_facts(),
    "cuda": cuda_facts(),
    "old cuda": cuda_facts((7, 0)),
    "no images": cpu_facts(input_shape=(16,)),
    "few samples": cuda_facts(dataset_samples=300),
}


def space_of(facts: Facts, *, batch: Any = "free", **search: Any) -> Space:
    whole = {
        "model": {"timm": "resnet18"},
        "data": {"synthetic": {"image_size": 64}},
        "budget": "10m",
        "training": {"effective_batch_size": batch},
        "search": search,
    }
    return build_space(parse_spec(whole, "."), facts)


@pytest.mark.parametrize("batch", ["free", 256, {"min": 64, "max": 256}], ids=str)
@pytest.mark.parametrize("facts", MACHINES.values(), ids=MACHINES.keys())
def test_four_to_six_where_the_spec_is_silent(facts: Facts, batch: Any) -> None:
    assert 4 <= len(expert_seeds(space_of(facts, batch=batch))) <= MOST_SEEDS == 6


def test_four_to_six_for_the_quickstart() -> None:
    space = build_space(load_spec(QUICKSTART).spec, cpu_facts(dataset_samples=1000))
    assert 4 <= len(expert_seeds(space)) <= 6


def test_the_first_takes_all_that_should_help_at_once() -> None:
    first = expert_seeds(space_of(cuda_facts()))[0]
    assert (first.amp_dtype, first.memory_format, first.fp32_precision) == ("bf16", "channels_last", "tf32")
    assert first.pin_memory
    assert first.fused_optimizer
    assert first.num_workers > 0
    assert first.micro_batch_size > 32


def test_the_second_does_the_same_at_the_baselines_batch() -> None:
    space = space_of(cuda_facts())
    first, second = expert_seeds(space)[:2]
    assert second == first.replace(
        micro_batch_size=space.baseline.micro_batch_size, grad_accum_steps=space.baseline.grad_accum_steps
    )


def test_one_leaves_amp_alone_one_has_no_workers_one_compiles() -> None:
    """What mostly helps, but not everywhere: depth-wise convolutions lose with AMP, small data with workers."""
    seeds = expert_seeds(space_of(cuda_facts()))
    assert any(seed.amp_dtype == "none" for seed in seeds)
    assert any(seed.num_workers == 0 for seed in seeds)
    assert any(seed.compile == "default" for seed in seeds)


def test_fp16_where_there_is_no_bf16() -> None:
    facts = cuda_facts((7, 0))
    volta = facts.model_copy(update={"device": facts.device.model_copy(update={"amp_dtypes": ("fp16",)})})
    assert expert_seeds(space_of(volta))[0].amp_dtype == "fp16"


def test_what_dropped_out_or_is_held_is_in_no_seed() -> None:
    space = space_of(cpu_facts(input_shape=(16,)), amp_dtype="none", compile="none")
    for seed in expert_seeds(space):
        assert (seed.amp_dtype, seed.compile, seed.memory_format) == ("none", "none", "contiguous")
        assert not seed.pin_memory
        assert seed.fp32_precision is None


def test_a_space_of_the_baseline_alone_has_none() -> None:
    held = {knob: value for knob, value in TrainConfig(num_threads=4).to_dict().items() if value is not None}
    assert expert_seeds(space_of(cpu_facts(), **held)) == []


SEARCHES = st.fixed_dictionaries(
    {},
    optional={
        "micro_batch_size": st.lists(st.sampled_from([4, 8, 16, 32, 64, 128]), min_size=1, max_size=4, unique=True),
        "grad_accum_steps": st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=3, unique=True),
        "amp_dtype": st.sampled_from([["none"], ["bf16"], ["fp16", "bf16", "none"]]),
        "num_workers": st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True),
        "prefetch_factor": st.lists(st.integers(1, 8), min_size=1, max_size=2, unique=True),
        "memory_format": st.sampled_from(["channels_last", "contiguous"]),
        "compile": st.sampled_from(["none", "default", ["none", "max-autotune"]]),
        "fused_optimizer": st.sampled_from([True, False]),
    },
)


@settings(deadline=None, database=None, max_examples=100)
@given(search=SEARCHES, facts=st.sampled_from(list(MACHINES.values())), wide=st.booleans())
def test_distinct_inside_the_space_and_never_the_baseline(search: dict[str, Any], facts: Facts, wide: bool) -> None:
    batch = {"min": 1, "max": 4096}
    space = space_of(facts, batch="free" if wide else batch, **search)
    seeds = expert_seeds(space)
    assert len(seeds) <= min(MOST_SEEDS, space.size - 1)
    assert len(set(seeds)) == len(seeds)
    assert space.baseline not in seeds
    for seed in seeds:
        assert space.config_at(space.indices_of(seed)) == seed
        assert allows_effective_batch(EffectiveBatchRange(**batch), seed.effective_batch_size)
