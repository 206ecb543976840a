"""The space of a spec on a machine: what is searched, what drops out, and around which baseline."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.facts import cpu_facts, cuda_facts

from autotune.config import KNOB_NAMES, RANK_KNOBS, KnobValue, TrainConfig
from autotune.errors import SpecError
from autotune.records import Facts
from autotune.search.build_space import build_space
from autotune.search.space import Dimension, Dropped, Space
from autotune.spec import parse_spec
from autotune.spec.model import EffectiveBatchRange, allows_effective_batch

HELD: dict[str, Any] = {
    "micro_batch_size": 32,
    "grad_accum_steps": 1,
    "amp_dtype": "none",
    "pin_memory": False,
    "num_workers": 0,
    "prefetch_factor": 2,
    "memory_format": "contiguous",
    "compile": "none",
    "fused_optimizer": False,
    "activation_checkpointing": False,
    "num_threads": 4,
}
"""Every knob at what an untuned user gets: a space of one configuration, to be opened knob by knob."""


def space_of(
    facts: Facts | None = None,
    *,
    batch: Any = "free",
    baseline: dict[str, Any] | None = None,
    search: dict[str, Any] | None = None,
    **sections: Any,
) -> Space:
    whole = {
        "model": {"timm": "resnet18"},
        "data": {"synthetic": {"image_size": 64}},
        "budget": "10m",
        "training": {"effective_batch_size": batch} if batch else {},
        "baseline": baseline or {},
        "search": search or {},
        **sections,
    }
    return build_space(parse_spec(whole, "."), facts or cpu_facts())


def small(**open_knobs: Any) -> Space:
    return space_of(search=HELD | open_knobs)


def points(space: Space) -> list[dict[str, int]]:
    choices = [range(len(dimension.values)) for dimension in space.dimensions]
    names = [dimension.knob for dimension in space.dimensions]
    return [dict(zip(names, point, strict=True)) for point in itertools.product(*choices)]


def configs(space: Space) -> set[TrainConfig]:
    return {space.config_at(point) for point in points(space)}


def dimension_values(space: Space) -> dict[str, tuple[KnobValue, ...]]:
    return {dimension.knob: dimension.values for dimension in space.dimensions}


def dropped(space: Space) -> list[str]:
    return [str(entry) for entry in space.dropped]


def test_a_silent_search_takes_every_knob_that_applies() -> None:
    values = dimension_values(space_of())
    assert values == {
        "micro_batch_size": (8, 16, 32, 64, 128, 256, 512),
        "grad_accum_steps": (1, 2, 4, 8, 16),
        "amp_dtype": ("none", "bf16"),
        "num_workers": (0, 1, 2, 4, 8, 16, 32),
        "prefetch_factor": (2, 4, 8),
        "memory_format": ("contiguous", "channels_last"),
        "compile": ("none", "default"),
        "fused_optimizer": (False, True),
        "num_threads": (1, 2, 4),
    }


def test_each_knob_is_searched_held_or_dropped_in_the_order_of_a_configuration() -> None:
    for facts in (cpu_facts(), cuda_facts()):
        space = space_of(facts)
        searched = list(dimension_values(space))
        assert searched == [name for name in KNOB_NAMES if name in searched]
        assert set(searched) | set(space.held) == set(KNOB_NAMES)
        assert not set(searched) & set(space.held)


def test_what_drops_out_says_why() -> None:
    assert set(dropped(space_of(budget="2m"))) == {
        "amp_dtype fp16: Test CPU has no fast fp16; list it under search.amp_dtype to try it anyway",
        "pin_memory: no accelerator",
        "fp32_precision: CUDA only",
        "compile: a budget of 2m leaves no room to compile (10 s to 200 s each); list it under search.compile to try",
        "activation_checkpointing: it saves memory and costs time, and a CPU's memory is rarely the limit; "
        "list it under search to try it",
    }


def test_a_machine_on_which_all_applies_drops_nothing_but_the_cpus_threads() -> None:
    space = space_of(cuda_facts())
    assert dropped(space) == []
    assert set(space.held) == {"num_threads", *RANK_KNOBS}


def test_values_that_cannot_apply_drop_one_by_one() -> None:
    space = space_of(cpu_facts(dataset_samples=100))
    assert dimension_values(space)["micro_batch_size"] == (8, 16, 32, 64)
    reasons = [entry for entry in dropped(space) if entry.startswith("micro_batch_size")]
    assert reasons == [f"micro_batch_size {size}: the data set has 100 samples" for size in (128, 256, 512)]


def test_a_listed_value_that_cannot_apply_is_not_searched() -> None:
    space = space_of(search={"pin_memory": True, "fp32_precision": ["ieee", "tf32"], "micro_batch_size": [32, 20_000]})
    assert not {"pin_memory", "fp32_precision", "micro_batch_size"} & dimension_values(space).keys()
    assert space.held["pin_memory"] is False
    assert space.held["fp32_precision"] is None
    assert space.held["micro_batch_size"] == 32
    assert {"pin_memory: no accelerator", "fp32_precision: CUDA only"} <= set(dropped(space))
    assert any("20000" in entry or "10000 samples" in entry for entry in dropped(space))


def test_a_listed_value_overrules_advice() -> None:
    space = space_of(search={"amp_dtype": ["none", "fp16"]})
    assert dimension_values(space)["amp_dtype"] == ("none", "fp16")
    assert not [entry for entry in dropped(space) if entry.startswith("amp_dtype")]


@pytest.mark.parametrize(
    ("batch", "samples", "given", "micro", "accum"),
    [
        ("free", 10_000, {}, 32, 1),
        ("free", None, {}, 32, 1),
        ("free", 20, {}, 20, 1),
        ("free", 10_000, {"micro_batch_size": 48}, 48, 1),
        ("free", 10_000, {"micro_batch_size": 48, "grad_accum_steps": 3}, 48, 3),
        (256, 10_000, {}, 32, 8),
        (32, 10_000, {}, 32, 1),
        (24, 10_000, {}, 24, 1),
        (100, 10_000, {}, 25, 4),
        (37, 10_000, {}, 1, 37),
        (256, 10_000, {"micro_batch_size": 8}, 8, 32),
        (256, 10_000, {"grad_accum_steps": 4}, 64, 4),
        (37, 10_000, {"grad_accum_steps": 1}, 37, 1),
        ({"min": 40, "max": 44}, 10_000, {}, 22, 2),
        ({"min": 70, "max": 90}, 10_000, {"grad_accum_steps": 2}, 35, 2),
        ({"min": 64, "max": 128}, 10_000, {"grad_accum_steps": 3}, 32, 3),
        ({"min": 64, "max": 128}, 10_000, {}, 32, 2),
        ({"min": 8, "max": 16}, 10_000, {}, 16, 1),
        ({"min": 1, "max": 4096}, 10_000, {}, 32, 1),
        ({"min": 100, "max": 400}, 10_000, {"micro_batch_size": 30}, 30, 4),
    ],
)
def test_the_batch_of_the_baseline(
    batch: Any, samples: int | None, given: dict[str, int], micro: int, accum: int
) -> None:
    facts, search = cpu_facts(dataset_samples=samples), {"micro_batch_size": list(range(1, 65))}
    baseline = space_of(facts, batch=batch, baseline=given, search=search).baseline
    assert (baseline.micro_batch_size, baseline.grad_accum_steps) == (micro, accum)


@pytest.mark.parametrize(
    ("given", "size"), [({}, 32), ({"micro_batch_size": 24}, 24), ({"micro_batch_size": 8, "grad_accum_steps": 3}, 24)]
)
def test_by_default_the_effective_batch_of_the_baseline_is_held(given: dict[str, int], size: int) -> None:
    """A larger one trains something else: it is searched where the spec says so."""
    space = space_of(batch=None, baseline=given)
    assert {config.effective_batch_size for config in configs(space)} == {size}
    assert f"grad_accum_steps: follows from effective_batch_size {size}, the baseline's" in dropped(space)
    assert len(dimension_values(space)["micro_batch_size"]) > 2
    assert space_of(batch="baseline", baseline=given) == space


def test_listed_micro_batches_that_cannot_give_the_effective_batch_are_said() -> None:
    space = space_of(batch=None, search={"micro_batch_size": [16, 24, 32, 64]})
    assert dimension_values(space)["micro_batch_size"] == (16, 32)
    for micro in (24, 64):
        assert f"micro_batch_size {micro}: cannot give effective_batch_size 32, the baseline's" in dropped(space)


def test_micro_batches_that_cannot_give_the_effective_batch_are_not_blamed_on_the_data_set() -> None:
    """With 300 samples, 64 to 256 would not be searched either."""
    facts = cpu_facts(dataset_samples=300)
    reasons = [entry for entry in dropped(space_of(facts, batch=None)) if entry.startswith("micro_batch_size")]
    assert reasons == ["micro_batch_size: 64, 128, 256, 512 cannot give effective_batch_size 32, the baseline's"]
    listed = space_of(facts, batch=None, search={"micro_batch_size": [16, 32, 512]})
    assert "micro_batch_size 512: cannot give effective_batch_size 32, the baseline's" in dropped(listed)
    assert not any("300 samples" in entry for entry in dropped(listed))


@pytest.mark.parametrize(
    ("default", "searched", "said"),
    [
        (1, (), "num_threads: PyTorch has 1 thread"),
        (2, (1, 2), "num_threads 4: PyTorch has 2 threads"),
        (4, (1, 2, 4), ""),
    ],
)
def test_threads_that_the_environment_keeps_back_are_said(default: int, searched: tuple[int, ...], said: str) -> None:
    facts = cpu_facts()
    facts = facts.model_copy(update={"host": facts.host.model_copy(update={"default_num_threads": default})})
    space = space_of(facts)
    assert dimension_values(space).get("num_threads", ()) == searched
    reasons = [entry for entry in dropped(space) if entry.startswith("num_threads")]
    rest = " here, set most often by OMP_NUM_THREADS; list it under search to try more"
    assert reasons == ([said + rest] if said else [])
    listed = space_of(facts, search={"num_threads": [1, 4]})
    assert {1, 4} <= set(dimension_values(listed)["num_threads"])


def test_a_silent_baseline_is_an_untuned_users() -> None:
    untuned = TrainConfig(micro_batch_size=32, grad_accum_steps=1)
    assert space_of(cuda_facts()).baseline == untuned
    assert space_of(cpu_facts()).baseline == untuned.replace(num_threads=4)


@pytest.mark.parametrize(
    ("facts", "baseline"),
    [
        (cpu_facts(), {"amp_dtype": "fp16"}),
        (cpu_facts(), {"activation_checkpointing": True}),
        (cpu_facts(), {"compile": "default"}),
    ],
)
def test_a_baseline_may_be_inadvisable(facts: Facts, baseline: dict[str, Any]) -> None:
    space = space_of(facts, baseline=baseline, budget="2m")
    assert {knob: space.baseline.to_dict()[knob] for knob in baseline} == baseline


def test_a_baseline_with_workers_prefetches_as_pytorch_does() -> None:
    assert space_of(baseline={"num_workers": 2}).baseline.prefetch_factor == 2
    assert space_of(baseline={"num_workers": 2, "prefetch_factor": 8}).baseline.prefetch_factor == 8
    assert space_of(baseline={"num_workers": 0}).baseline.prefetch_factor is None


def test_a_fixed_effective_batch_is_met_everywhere_and_accumulation_follows() -> None:
    space = space_of(batch=96, search=HELD | {"micro_batch_size": [8, 10, 32, 48, 96], "grad_accum_steps": None})
    assert "grad_accum_steps" not in dimension_values(space)
    assert {(c.micro_batch_size, c.grad_accum_steps) for c in configs(space)} == {(8, 12), (32, 3), (48, 2), (96, 1)}
    assert "grad_accum_steps: follows from effective_batch_size 96" in dropped(space)


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [
        (96, (8, 16, 32)),
        (64, (8, 16, 32, 64)),
        (100, (4, 5, 10, 20, 25, 50, 100)),
        (48, (4, 6, 8, 12, 16, 24, 48)),
        (37, (1, 37)),
        (1000, (20, 25, 40, 50, 100, 125, 200, 250, 500)[-7:]),
    ],
)
def test_a_fixed_effective_batch_that_few_powers_of_two_divide_has_its_own_divisors(
    batch: int, sizes: tuple[int, ...]
) -> None:
    searched = {d.knob: d.searched for d in space_of(batch=batch).dimensions}
    assert searched["micro_batch_size"] == sizes


def test_effective_batches_larger_than_the_data_set_drop_out() -> None:
    space = space_of(
        cpu_facts(dataset_samples=100), search=HELD | {"micro_batch_size": [16, 32, 64], "grad_accum_steps": [1, 2, 4]}
    )
    found = {(c.micro_batch_size, c.grad_accum_steps) for c in configs(space)}
    assert found == {(16, 1), (16, 2), (16, 4), (32, 1), (32, 2), (64, 1)}


def test_a_fixed_effective_batch_keeps_to_the_listed_counts() -> None:
    space = space_of(batch=96, search=HELD | {"micro_batch_size": [8, 32, 48, 96], "grad_accum_steps": [1, 3]})
    assert {(c.micro_batch_size, c.grad_accum_steps) for c in configs(space)} == {(32, 3), (96, 1)}


def test_a_range_of_effective_batches() -> None:
    space = space_of(
        batch={"min": 64, "max": 128}, search=HELD | {"micro_batch_size": [8, 16, 64, 256], "grad_accum_steps": None}
    )
    found = {(c.micro_batch_size, c.grad_accum_steps) for c in configs(space)}
    assert found == {(8, 8), (8, 16), (16, 4), (16, 8), (64, 1), (64, 2), (32, 2)}
    assert space.baseline.effective_batch_size == 64


def test_a_free_effective_batch_takes_every_pair() -> None:
    space = small(micro_batch_size=[16, 32], grad_accum_steps=[1, 3])
    assert {(c.micro_batch_size, c.grad_accum_steps) for c in configs(space)} == {(16, 1), (16, 3), (32, 1), (32, 3)}


def test_the_nearest_count_stands_in_for_one_that_does_not_fit() -> None:
    space = space_of(batch={"min": 64, "max": 128}, search={"micro_batch_size": [16, 64]})
    wish = space.baseline.replace(micro_batch_size=16, grad_accum_steps=1)
    assert space.complete(wish).grad_accum_steps == 4
    assert space.complete(wish.replace(grad_accum_steps=16)).grad_accum_steps == 8


def test_prefetching_without_workers_is_one_configuration() -> None:
    space = small(num_workers=[0, 2], prefetch_factor=[2, 4, 8])
    assert {(c.num_workers, c.prefetch_factor) for c in configs(space)} == {(0, None), (2, 2), (2, 4), (2, 8)}
    assert len(points(space)) == 6
    assert space.size == 4


def test_a_held_prefetch_factor_reaches_configurations_with_workers() -> None:
    space = small(num_workers=[0, 2], prefetch_factor=6)
    assert {(c.num_workers, c.prefetch_factor) for c in configs(space)} == {(0, None), (2, 6)}


@pytest.mark.parametrize(
    ("baseline", "search"),
    [
        ({"micro_batch_size": 24}, {"micro_batch_size": [16, 32]}),
        ({"micro_batch_size": 24}, {"micro_batch_size": 16}),
        ({"num_workers": 3}, {"num_workers": [0, 4]}),
        ({"amp_dtype": "bf16"}, {"amp_dtype": "none", "memory_format": ["contiguous", "channels_last"]}),
        ({"num_workers": 2, "prefetch_factor": 16}, {"num_workers": [1, 2], "prefetch_factor": [2, 4]}),
        ({"grad_accum_steps": 5, "micro_batch_size": 32}, {"grad_accum_steps": [1, 2]}),
        ({"num_threads": 3}, {"num_threads": [1, 4]}),
    ],
)
def test_a_baseline_outside_the_searched_values_is_a_point_and_no_other_config_takes_them(
    baseline: dict[str, Any], search: dict[str, Any]
) -> None:
    space = space_of(baseline=baseline, search=HELD | search)
    assert space.config_at(space.baseline_indices) == space.baseline
    assert {knob: space.baseline.to_dict()[knob] for knob in baseline} == baseline
    for config in configs(space) - {space.baseline}:
        for knob, values in search.items():
            allowed = values if isinstance(values, list) else [values]
            assert config.to_dict()[knob] in allowed or not config.num_workers


def test_a_baselines_own_number_stands_in_order_among_the_searched() -> None:
    space = space_of(baseline={"micro_batch_size": 24}, search=HELD | {"micro_batch_size": [64, 16, 32]})
    (dimension,) = (dimension for dimension in space.dimensions if dimension.knob == "micro_batch_size")
    assert dimension.values == (16, 24, 32, 64)
    assert dimension.searched == (64, 16, 32)


def test_the_nearest_searched_value_stands_in_for_the_baselines_own() -> None:
    dimension = Dimension(knob="micro_batch_size", values=(8, 24, 32, 64), searched=(8, 64))
    assert [dimension.nearest_searched(index) for index in range(4)] == [8, 8, 64, 64]


def test_size_counts_configurations_not_points() -> None:
    assert small().size == 1
    assert small(micro_batch_size=[16, 32], amp_dtype=["none", "bf16"]).size == 4
    assert space_of(baseline={"micro_batch_size": 24}, search=HELD | {"micro_batch_size": [16, 32]}).size == 3
    assert space_of(cuda_facts()).size == math.inf


def test_indices_of_a_value_outside_the_space_are_its_first() -> None:
    space = small(micro_batch_size=[16, 32], amp_dtype=["none", "bf16"])
    assert space.indices_of(TrainConfig(micro_batch_size=7, amp_dtype="bf16")) == {
        "micro_batch_size": 0,
        "amp_dtype": 1,
    }


def test_distributions_are_indices_of_the_values() -> None:
    space = small(micro_batch_size=[16, 32, 64], amp_dtype=["none", "bf16"])
    assert {knob: (d.low, d.high, d.step) for knob, d in space.distributions.items()} == {
        "micro_batch_size": (0, 2, 1),
        "amp_dtype": (0, 1, 1),
    }


def test_what_a_resumed_study_compares_tells_spaces_apart() -> None:
    same = small(num_workers=[0, 2]).to_dict()
    assert small(num_workers=[0, 2]).to_dict() == same
    assert small(num_workers=[2, 0]).to_dict() != same, "indices would mean other values"
    assert space_of(baseline={"num_workers": 1}, search=HELD | {"num_workers": [0, 2]}).to_dict() != same
    assert space_of(batch=64, search=HELD | {"num_workers": [0, 2], "grad_accum_steps": None}).to_dict() != same


def test_a_dropped_value_is_named_and_a_dropped_knob_is_not() -> None:
    assert str(Dropped(knob="amp_dtype", value="fp16", reason="slow")) == "amp_dtype fp16: slow"
    assert str(Dropped(knob="pin_memory", value=None, reason="no accelerator")) == "pin_memory: no accelerator"


@pytest.mark.parametrize(
    ("facts", "sections", "message"),
    [
        (cpu_facts(dataset_samples=100), {"batch": 128}, r"100 samples, fewer than the 128 of one optimizer step"),
        (cpu_facts(dataset_samples=0), {}, r"0 samples, fewer than"),
        (
            cpu_facts(dataset_samples=20),
            {"baseline": {"micro_batch_size": 32}},
            r"baseline\.micro_batch_size: 32 does not apply here: the data set has 20 samples",
        ),
        (
            cpu_facts(),
            {"baseline": {"pin_memory": True}},
            r"baseline\.pin_memory: True does not apply here: no accelerator",
        ),
        (cuda_facts((7, 5)), {"baseline": {"fp32_precision": "tf32"}}, r"baseline\.fp32_precision: tf32 .*8\.0"),
        (
            cpu_facts(dataset_samples=80),
            {"batch": {"min": 64, "max": 96}, "search": {"micro_batch_size": [48, 96], "grad_accum_steps": 1}},
            r"no micro_batch_size of \[48\] with a grad_accum_steps of \[1\] "
            r"gives training\.effective_batch_size 64 to 96; widen",
        ),
        (
            cpu_facts(),
            {"batch": None, "search": {"micro_batch_size": [8, 48], "grad_accum_steps": 1}},
            r"gives training\.effective_batch_size 32, the baseline's; widen one of the three, or let `free` search",
        ),
    ],
)
def test_a_space_without_a_point_is_an_error_that_says_what_to_mend(
    facts: Facts, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        space_of(facts, **sections)


NUMBERS = st.lists(st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]), min_size=1, max_size=4, unique=True)
FEW = st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True)
BATCHES = st.one_of(
    st.just("free"),
    st.sampled_from([8, 24, 32, 48, 64, 96]),
    st.tuples(st.integers(1, 96), st.integers(0, 96)).map(lambda ends: {"min": ends[0], "max": ends[0] + ends[1]}),
)
SEARCHES = st.fixed_dictionaries(
    {
        "micro_batch_size": NUMBERS,
        "num_workers": FEW,
        "prefetch_factor": st.lists(st.integers(1, 8), min_size=1, max_size=3, unique=True),
        "amp_dtype": st.sampled_from([["none"], ["bf16"], ["none", "bf16"], ["fp16", "none", "bf16"]]),
        "num_threads": st.lists(st.integers(1, 4), min_size=1, max_size=2, unique=True),
    },
    optional={"grad_accum_steps": NUMBERS},
)
BASELINES = st.fixed_dictionaries(
    {},
    optional={
        "micro_batch_size": st.sampled_from([4, 5, 8, 32, 48]),
        "grad_accum_steps": st.integers(1, 4),
        "num_workers": st.integers(0, 3),
        "amp_dtype": st.sampled_from(["none", "bf16"]),
        "num_threads": st.integers(1, 4),
    },
)


def possible_space(batch: Any, baseline: dict[str, Any], search: dict[str, Any]) -> Space:
    held = {knob: value for knob, value in HELD.items() if knob not in ("grad_accum_steps",)}
    try:
        return space_of(batch=batch, baseline=baseline, search=held | search)
    except SpecError:
        assume(False)
        raise


@settings(deadline=None, database=None, max_examples=150)
@given(batch=BATCHES, baseline=BASELINES, search=SEARCHES)
def test_every_point_keeps_the_promises_of_the_space(
    batch: Any, baseline: dict[str, Any], search: dict[str, Any]
) -> None:
    space = possible_space(batch, baseline, search)
    wanted = EffectiveBatchRange(**batch) if isinstance(batch, dict) else batch
    found = configs(space)
    assert space.size == len(found)
    assert space.config_at(space.baseline_indices) == space.baseline
    for config in found:
        assert space.config_at(space.indices_of(config)) == config
        assert allows_effective_batch(wanted, config.effective_batch_size)
        assert (config.prefetch_factor is None) == (config.num_workers == 0)
        if config != space.baseline:
            values = config.to_dict()
            assert all(
                values[knob] in search[knob] for knob in search if knob not in ("grad_accum_steps", "prefetch_factor")
            )
            assert config.prefetch_factor in (None, *search["prefetch_factor"])
