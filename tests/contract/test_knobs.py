"""What every knob and every strategy promises, over all that their folders hold."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any, get_args

import optuna
import pytest
from optuna.samplers import BaseSampler
from support.facts import cpu_facts, cuda_facts

from autotune.config import KNOB_NAMES, KnobValue, TrainConfig
from autotune.errors import SpecError
from autotune.knobs import KNOBS, Knob, KnobContext
from autotune.records import Facts
from autotune.search.build_space import build_space
from autotune.search.space import _DECIDED_BY, Space
from autotune.search.strategies import STRATEGIES, Strategy, StrategyContext
from autotune.spec import Spec, parse_spec
from autotune.spec.model import BaselineSpec, SearchSpec, StrategySpec

LONGEST_REASON = 120
BY_NAME = {knob.name: knob for knob in KNOBS}


def spec(**sections: Any) -> Spec:
    whole = {"model": {"timm": "resnet18"}, "data": {"synthetic": {"image_size": 64}}, "budget": "10m", **sections}
    return parse_spec(whole, ".")


def contexts(**sections: Any) -> dict[str, KnobContext]:
    """`FACTS`, each with a spec."""
    parsed = spec(**sections)
    return {machine: KnobContext(spec=parsed, facts=facts) for machine, facts in FACTS.items()}


def device(facts: Facts, **changes: Any) -> Facts:
    return facts.model_copy(update={"device": facts.device.model_copy(update=changes)})


def host(facts: Facts, **changes: Any) -> Facts:
    return facts.model_copy(update={"host": facts.host.model_copy(update=changes)})


POOR_WORKLOAD: dict[str, Any] = {
    "dataset_samples": 40,
    "input_shape": (16,),
    "activation_checkpointing_refusal": "the model cannot",
    "fused_optimizer_refusal": "LBFGS has no fused form",
}
FACTS = {
    "cpu": cpu_facts(),
    "cuda": cuda_facts(),
    "old cuda": cuda_facts((7, 0)),
    "mps": device(cpu_facts(), kind="mps"),
    "one core": host(cpu_facts(), usable_cores=1, default_num_threads=1),
    "odd cores": host(cpu_facts(), usable_cores=6, default_num_threads=6, shm_bytes=64 << 20),
    "poor cpu": device(cpu_facts(**POOR_WORKLOAD), compile_refusal="no C++ compiler", amp_dtypes=()),
    "poor cuda": device(cuda_facts((6, 0), **POOR_WORKLOAD), compile_refusal="no C++ compiler", amp_dtypes=()),
    "unknown length": cuda_facts(dataset_samples=None, input_shape=None),
}

every_knob = pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.name)
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES.keys())


def test_every_field_of_a_configuration_has_its_knob_in_order() -> None:
    assert tuple(knob.name for knob in KNOBS) == KNOB_NAMES


@every_knob
def test_specs_know_the_knob_under_the_same_name(knob: Knob) -> None:
    assert knob.name in SearchSpec.model_fields
    assert knob.name in BaselineSpec.model_fields
    assert knob.name in KNOB_NAMES


def test_specs_know_no_other_knob() -> None:
    assert set(SearchSpec.model_fields) == set(BaselineSpec.model_fields) == {*KNOB_NAMES, "custom"}


@every_knob
def test_the_domain_has_values_each_once_in_their_natural_order(knob: Knob) -> None:
    for machine, context in contexts().items():
        values = knob.domain(context)
        assert values, machine
        assert len(values) == len(set(values)), machine
        numbers = [value for value in values if type(value) is int]
        assert numbers == sorted(numbers), machine


@every_knob
def test_the_untuned_value_applies_and_is_searched(knob: Knob) -> None:
    for machine, context in contexts().items():
        untuned = knob.untuned_value(context)
        assert knob.refusal(untuned, context) is None, machine
        assert untuned in knob.domain(context), machine


@every_knob
def test_whoever_lists_the_domain_writes_what_specs_allow(knob: Knob) -> None:
    for context in contexts().values():
        listed = tuple(value for value in knob.domain(context) if value is not None)
        if listed:
            assert SearchSpec.model_validate({knob.name: list(listed)}).values(knob.name) == listed


@pytest.mark.parametrize("budget", ["30s", "10m"])
@every_knob
def test_every_refusal_is_one_short_line(knob: Knob, budget: str) -> None:
    for context in contexts(budget=budget).values():
        for reason in (knob.refusal(value, context) for value in knob.domain(context)):
            if reason is not None:
                assert 0 < len(reason) <= LONGEST_REASON
                assert reason.strip() == reason
                assert len(reason.splitlines()) == 1
                assert not reason.endswith("."), "it stands in a list, after the knob's name"


@every_knob
def test_listing_a_value_never_makes_another_refusal(knob: Knob) -> None:
    """What is impossible stays so in the same words; advice gives way."""
    for silent in contexts().values():
        values = [value for value in knob.domain(silent) if value is not None]
        if values:
            listed = KnobContext(spec=spec(search={knob.name: values}), facts=silent.facts)
            assert all(knob.refusal(value, listed) in (None, knob.refusal(value, silent)) for value in values)


FEW_VALUES: dict[str, Any] = {
    "micro_batch_size": [16, 32],
    "grad_accum_steps": [1, 2],
    "num_workers": [0, 2],
    "activation_checkpointing": [False, True],
}
"""Short lists for long domains, so that all pairs can be gone through, and for a knob that is not searched on a CPU."""


@functools.cache
def spaces() -> tuple[tuple[KnobContext, Space, frozenset[TrainConfig]], ...]:
    """Spaces for one process and for two, on a CPU and on CUDA, each with configurations: the baseline, and what it
    becomes when one or two searched knobs take another value."""
    found = []
    for ranks in (1, 2):
        sections = {"search": FEW_VALUES, "execution": {"ranks_per_trial": ranks}}
        for machine in ("cpu", "cuda"):
            context = contexts(training={"effective_batch_size": "free"}, **sections)[machine]
            space = build_space(context.spec, context.facts)
            moves = [
                (dimension.knob, index) for dimension in space.dimensions for index in range(len(dimension.values))
            ]
            pairs = itertools.combinations_with_replacement(moves, 2)
            near = {space.config_at({**space.baseline_indices, **dict(pair)}) for pair in pairs}
            found.append((context, space, frozenset(near)))
    return tuple(found)


def after_one_change(space: Space, config: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
    """The name of each searched knob, with what becomes of `config` when that knob takes another value."""
    for dimension in space.dimensions:
        for value in dimension.searched:
            yield dimension.knob, space.complete(config.replace(**{dimension.knob: value}))


@every_knob
def test_a_knob_has_a_value_of_its_domain_where_it_matters_and_none_elsewhere(knob: Knob) -> None:
    mattered, searched = False, False
    for context, space, configs in spaces():
        searched = searched or knob.name in space.distributions
        for config in {*configs, *(after for _, after in after_one_change(space, space.baseline))}:
            matters = knob.matters(config)
            assert config.value(knob.name) in (knob.domain(context) if matters else (None,)), config
            mattered = mattered or matters
    assert mattered and searched


@every_knob
def test_whether_a_knob_matters_does_not_depend_on_its_own_value(knob: Knob) -> None:
    """Else taking its value away where it has no effect could give it one."""
    for context, _, configs in spaces():
        for config in configs:
            changed = (config.replace(**{knob.name: value}) for value in (None, *knob.domain(context)))
            assert {knob.matters(each) for each in changed} == {knob.matters(config)}, config


@functools.cache
def decided_by() -> dict[str, set[str]]:
    """For each knob, the other ones of which a change takes its value away, gives it one, or sets it to another."""
    found: dict[str, set[str]] = {knob.name: set() for knob in KNOBS}
    for _, space, configs in spaces():
        for config in configs:
            for changed, after in after_one_change(space, config):
                for other in config.differences(after).keys() - {changed}:
                    found[other].add(changed)
    return found


@every_knob
def test_spaces_know_which_knobs_decide_on_the_value_of_another(knob: Knob) -> None:
    """Constraints on a knob are decided by these too."""
    assert decided_by()[knob.name] == _DECIDED_BY.get(knob.name, set())


@pytest.mark.parametrize(
    ("name", "value", "facts", "reason"),
    [
        ("pin_memory", True, cpu_facts(), "no accelerator"),
        ("pin_memory", True, FACTS["mps"], "PyTorch does not pin memory for MPS"),
        ("fp32_precision", "tf32", cuda_facts((7, 5)), "tf32 needs compute capability 8.0"),
        ("fp32_precision", "tf32", device(cuda_facts(), compute_capability=None), "tf32 needs compute capability 8.0"),
        ("fp32_precision", "tf32", cpu_facts(), "CUDA only"),
        ("fp32_precision", "ieee", cpu_facts(), "CUDA only"),
        ("memory_format", "channels_last", cpu_facts(input_shape=(16,)), "the inputs are not images"),
        ("memory_format", "channels_last", cuda_facts(input_shape=None), "the inputs are not images"),
        ("compile", "default", device(cpu_facts(), compile_refusal="no C++ compiler"), "no C++ compiler"),
        ("compile", "max-autotune", device(cuda_facts(), compile_refusal="no Triton"), "no Triton"),
        ("compile", "reduce-overhead", cpu_facts(), "it adds CUDA graphs only"),
        ("micro_batch_size", 64, cpu_facts(dataset_samples=63), "the data set has 63 samples"),
        ("num_threads", 4, cuda_facts(), "CPU only"),
        ("activation_checkpointing", True, cuda_facts(activation_checkpointing_refusal="it cannot"), "it cannot"),
        ("fused_optimizer", True, cpu_facts(fused_optimizer_refusal="LBFGS has none"), "LBFGS has none"),
        ("data_parallel", "fsdp", cuda_facts(), "it needs several processes; set execution.ranks_per_trial"),
        ("bucket_cap_mb", 5, cuda_facts(), "it needs several processes; set execution.ranks_per_trial"),
    ],
)
def test_what_is_impossible_is_refused_even_when_listed(name: str, value: KnobValue, facts: Facts, reason: str) -> None:
    for search in ({}, {name: value}):
        refusal = BY_NAME[name].refusal(value, KnobContext(spec=spec(search=search), facts=facts))
        assert refusal is not None
        assert refusal.startswith(reason)


@pytest.mark.parametrize(
    ("name", "value", "facts", "budget", "reason"),
    [
        ("amp_dtype", "fp16", cpu_facts(), "10m", "Test CPU has no fast fp16"),
        ("amp_dtype", "bf16", device(cpu_facts(), amp_dtypes=()), "10m", "Test CPU has no fast bf16"),
        ("compile", "default", cpu_facts(), "4m59s", "a budget of 4m59s leaves no room to compile"),
        ("compile", "max-autotune", cuda_facts(), "2m", "a budget of 2m leaves no room to compile"),
        ("num_workers", 2, host(cpu_facts(), shm_bytes=64 << 20), "10m", "/dev/shm holds only 64 MiB"),
        ("activation_checkpointing", True, cpu_facts(), "10m", "it saves memory and costs time"),
    ],
)
def test_advice_gives_way_to_a_listed_value(
    name: str, value: KnobValue, facts: Facts, budget: str, reason: str
) -> None:
    silent = KnobContext(spec=spec(budget=budget), facts=facts)
    refusal = BY_NAME[name].refusal(value, silent)
    assert refusal is not None
    assert refusal.startswith(reason)
    assert "list " in refusal, "the way around it belongs to the advice"
    listed = KnobContext(spec=spec(budget=budget, search={name: value}), facts=facts)
    assert BY_NAME[name].refusal(value, listed) is None


@pytest.mark.parametrize(
    ("name", "value", "facts"),
    [
        ("pin_memory", True, cuda_facts()),
        ("pin_memory", False, cpu_facts()),
        ("fp32_precision", "tf32", cuda_facts((8, 0))),
        ("fp32_precision", "ieee", cuda_facts((7, 0))),
        ("memory_format", "channels_last", cpu_facts()),
        ("memory_format", "contiguous", cpu_facts(input_shape=None)),
        ("compile", "default", cpu_facts()),
        ("compile", "reduce-overhead", cuda_facts()),
        ("micro_batch_size", 64, cpu_facts(dataset_samples=64)),
        ("micro_batch_size", 512, cpu_facts(dataset_samples=None)),
        ("num_threads", 4, cpu_facts()),
        ("amp_dtype", "bf16", cpu_facts()),
        ("amp_dtype", "fp16", cuda_facts()),
        ("activation_checkpointing", True, cuda_facts()),
        ("activation_checkpointing", False, FACTS["poor cpu"]),
        ("fused_optimizer", True, cpu_facts()),
        ("fused_optimizer", False, FACTS["poor cpu"]),
        ("num_workers", 2, cpu_facts()),
        ("num_workers", 2, host(cpu_facts(), shm_bytes=None)),
        ("num_workers", 0, host(cpu_facts(), shm_bytes=1 << 20)),
    ],
)
def test_what_applies_is_not_refused(name: str, value: KnobValue, facts: Facts) -> None:
    assert BY_NAME[name].refusal(value, KnobContext(spec=spec(), facts=facts)) is None


@pytest.mark.parametrize(
    ("name", "facts", "values"),
    [
        ("micro_batch_size", cpu_facts(), (8, 16, 32, 64, 128, 256, 512)),
        ("num_workers", cpu_facts(), (0, 1, 2, 4, 8, 16, 32)),
        ("num_workers", FACTS["one core"], (0, 1, 2, 4, 8, 16, 32)),
        ("num_workers", host(cpu_facts(), usable_cores=2), (0, 1, 2, 4, 8, 16, 32)),
        ("num_workers", host(cpu_facts(), usable_cores=6), (0, 1, 2, 4, 6, 12, 24)),
        ("num_workers", host(cpu_facts(), usable_cores=16, memory_bytes=64 << 30), (0, 1, 2, 4, 6, 8, 12, 16, 32, 64)),
        ("num_workers", host(cpu_facts(), usable_cores=96), (0, 1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)),
        ("num_threads", cpu_facts(), (1, 2, 4)),
        ("num_threads", FACTS["odd cores"], (1, 2, 4, 6)),
        ("num_threads", FACTS["one core"], (1,)),
        ("num_threads", cuda_facts(), (None,)),
        ("compile", cpu_facts(), ("none", "default")),
        ("compile", cuda_facts(), ("none", "default", "reduce-overhead", "max-autotune")),
    ],
)
def test_domains_follow_the_machine(name: str, facts: Facts, values: tuple[KnobValue, ...]) -> None:
    assert BY_NAME[name].domain(KnobContext(spec=spec(), facts=facts)) == values


def test_more_loader_processes_than_cores_are_held_back_unless_they_are_listed() -> None:
    workers = BY_NAME["num_workers"]
    assert workers.held_back(KnobContext(spec=spec(), facts=cpu_facts())) == (8, 16, 32)
    assert workers.held_back(KnobContext(spec=spec(search={"num_workers": [0, 64]}), facts=cpu_facts())) == ()


@pytest.mark.parametrize(
    ("facts", "more"),
    [
        (host(cpu_facts(), memory_bytes=5 << 30), (8,)),  # 10 processes of 256 MiB in half of it
        (host(cpu_facts(), memory_bytes=1 << 30), ()),
        (host(cpu_facts(input_shape=(3, 224, 224)), shm_bytes=1 << 30), (8,)),  # 64 images of 602 kB each: 13 processes
        (host(cpu_facts(input_shape=None), shm_bytes=1 << 30), (8, 16, 32)),
        (host(cpu_facts(), shm_bytes=None), (8, 16, 32)),
        (host(cpu_facts(), usable_cores=128, memory_bytes=1 << 40), ()),
    ],
)
def test_more_loader_processes_than_cores_are_no_more_than_memory_holds(facts: Facts, more: tuple[int, ...]) -> None:
    context = KnobContext(spec=spec(), facts=facts)
    workers = BY_NAME["num_workers"]
    assert workers.held_back(context) == more
    assert workers.domain(context)[-len(more) - 1] <= facts.host.usable_cores
    assert more == () or workers.domain(context)[-len(more) :] == more


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.name)
@pytest.mark.parametrize("machine", FACTS)
def test_what_is_held_back_belongs_to_the_domain_and_is_not_all_of_it(knob: Knob, machine: str) -> None:
    context = contexts()[machine]
    assert set(knob.held_back(context)) < set(knob.domain(context))


def test_prefetching_matters_with_workers_only() -> None:
    prefetch = BY_NAME["prefetch_factor"]
    assert prefetch.matters(TrainConfig(num_workers=1))
    assert not prefetch.matters(TrainConfig(num_workers=0))


def small_space() -> Space:
    search: dict[str, Any] = {knob: value for knob, value in TrainConfig().to_dict().items() if value is not None}
    search |= {"micro_batch_size": [16, 32, 64], "num_workers": [0, 2], "prefetch_factor": [2, 4], "num_threads": 4}
    return build_space(spec(search=search), cpu_facts())


def sampler(strategy: Strategy, space: Space, seed: int = 0) -> BaseSampler:
    own = "optuna.samplers:TPESampler" if strategy.name == "factory" else None
    return strategy.build(StrategyContext(space=space, facts=cpu_facts(), seed=seed, factory=own))


def proposals(strategy: Strategy, space: Space, count: int, seed: int = 0) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=sampler(strategy, space, seed), direction="maximize")
    asked = []
    for number in range(count):
        trial = study.ask(dict(space.distributions))
        asked.append(dict(trial.params))
        study.tell(trial, float(number % 3))
    return asked


def test_the_spec_names_all_strategies_and_no_others() -> None:
    assert set(get_args(StrategySpec.model_fields["name"].annotation)) == set(STRATEGIES)


@every_strategy
def test_a_strategy_is_found_under_its_name(strategy: Strategy) -> None:
    assert STRATEGIES[strategy.name] is strategy
    assert isinstance(sampler(strategy, small_space()), BaseSampler)


@every_strategy
def test_a_strategy_proposes_points_of_the_space(strategy: Strategy) -> None:
    space = small_space()
    for point in proposals(strategy, space, count=8):
        assert point.keys() == space.distributions.keys()
        assert all(0 <= index <= space.distributions[knob].high for knob, index in point.items())


@every_strategy
def test_a_seed_repeats_the_proposals(strategy: Strategy) -> None:
    space = small_space()
    assert proposals(strategy, space, count=7, seed=3) == proposals(strategy, space, count=7, seed=3)


@every_strategy
def test_a_strategy_that_cannot_take_a_huge_space_says_so_before_any_trial(strategy: Strategy) -> None:
    space = build_space(spec(search={"micro_batch_size": {"min": 1, "max": 900, "step": 1}}), cuda_facts())
    assert space.size == float("inf")
    if strategy.name == "grid":
        with pytest.raises(SpecError, match=r"strategy\.name.*grid"):
            sampler(strategy, space)
    else:
        assert proposals(strategy, space, count=1)


@pytest.mark.parametrize("name", ["auto", "gp", "qmc", "random", "tpe"])
def test_an_argument_that_a_sampler_does_not_have_is_named(name: str) -> None:
    context = StrategyContext(space=small_space(), facts=cpu_facts(), seed=0, args={"n_startup_trails": 3})
    with pytest.raises(SpecError, match=r"strategy\.args\.n_startup_trails.*no such argument"):
        STRATEGIES[name].build(context)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("optuna.samplers:Nothing", "AttributeError"),
        ("no_such_module:build", "ModuleNotFoundError"),
        ("builtins:dict", "dict is no sampler"),
        ("fractions:Fraction", "returned a Fraction, not an Optuna sampler"),
        ("math:pi", "is not callable"),
    ],
)
def test_a_factory_that_gives_no_sampler_says_why(factory: str, message: str) -> None:
    context = StrategyContext(space=small_space(), facts=cpu_facts(), seed=0, factory=factory)
    with pytest.raises(SpecError, match=message):
        STRATEGIES["factory"].build(context)


def test_an_argument_reaches_the_sampler_and_the_seed_too() -> None:
    context = StrategyContext(
        space=small_space(),
        facts=cpu_facts(),
        seed=5,
        factory="optuna.samplers:TPESampler",
        args={"n_startup_trials": 3},
    )
    assert STRATEGIES["factory"].build(context)._n_startup_trials == 3


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.name)
@pytest.mark.parametrize("machine", FACTS)
def test_what_a_knob_is_expected_to_do_is_finite_and_nothing_where_nothing_is_changed(knob: Knob, machine: str) -> None:
    facts = FACTS[machine]
    untuned = TrainConfig(num_threads=facts.host.default_num_threads if facts.device.kind == "cpu" else None)
    assert knob.expected(untuned, facts) == (0.0, 0.0, 0.0)
    for value in knob.domain(contexts()[machine]):
        assert all(abs(change) < 3 for change in knob.expected(untuned.replace(**{knob.name: value}), facts))
    assert knob.doubt > 0
