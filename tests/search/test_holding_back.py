"""More loader processes than cores: in the space, and left alone until trials show that loading waits."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from support.facts import cpu_facts, cuda_facts
from support.feeding import Feeding

from autotune.config import TrainConfig
from autotune.records import Facts
from autotune.search import Space, build_space
from autotune.search.performance import OBSERVATION
from autotune.search.seeds import expert_seeds
from autotune.search.strategies import STRATEGIES, StrategyContext
from autotune.search.telling import ask, loading_waits, sampler_of
from autotune.spec import parse_spec

FACTS = cuda_facts()
CORES = FACTS.host.usable_cores
WAITING = Feeding(cores=CORES, compute_s=0.0002, wait_s=0.02, step_s=1 / 900)
COMPUTING = Feeding(cores=CORES, compute_s=0.02, wait_s=0.0, step_s=1 / 900)
SEARCH: dict[str, Any] = {
    "micro_batch_size": [32, 64],
    "grad_accum_steps": 1,
    "amp_dtype": ["none", "bf16"],
    "pin_memory": False,
    "prefetch_factor": 2,
    "memory_format": "contiguous",
    "compile": "none",
    "fp32_precision": "tf32",
    "fused_optimizer": False,
    "activation_checkpointing": False,
}


def space_of(facts: Facts = FACTS, baseline: int = 0, **search: Any) -> Space:
    whole = {
        "model": {"timm": "resnet18"},
        "data": {"synthetic": {"image_size": 64}},
        "training": {"effective_batch_size": "free"},
        "budget": "10m",
        "baseline": {"num_workers": baseline},
        "search": SEARCH | search,
    }
    return build_space(parse_spec(whole, "."), facts)


SPACE = space_of()


def study_of(name: str, world: Feeding, *, trials: int, rates: bool = True) -> tuple[optuna.Study, list[TrainConfig]]:
    sampler = sampler_of(STRATEGIES[name], StrategyContext(space=SPACE, facts=FACTS, seed=0))
    study = optuna.create_study(sampler=sampler, direction="maximize")
    tried = []
    for _ in range(trials):
        trial, config = ask(study, sampler, SPACE)
        seen = world.observed(config, rates=rates)
        trial.set_user_attr(OBSERVATION, seen.to_dict())
        trial.set_constraint("stable", -1.0)
        study.tell(trial, seen.samples_per_s)
        tried.append(config)
    return study, tried


def test_the_default_domain_reaches_beyond_the_cores_and_holds_that_back() -> None:
    assert next(each.values for each in SPACE.dimensions if each.knob == "num_workers") == (0, 1, 2, 4, 8, 16, 32)
    assert SPACE.held_back == {"num_workers": (8, 16, 32)}
    assert (SPACE.size, SPACE.at_hand.size) == (29, 17), "of each other setting 7 or 4, and the baseline in ieee"
    assert not any(config.num_workers > CORES for config in SPACE.at_hand.configurations())
    assert SPACE.at_hand.distributions == SPACE.distributions, "a study goes on with the same indices"


def test_what_the_spec_lists_or_the_baseline_has_is_not_held_back() -> None:
    assert space_of(num_workers=[0, 64]).held_back == {}
    assert space_of(baseline=8).held_back == {"num_workers": (16, 32)}


def test_no_expert_begins_with_more_processes_than_cores() -> None:
    seeds = expert_seeds(SPACE)
    assert seeds
    assert max(seed.num_workers for seed in seeds) == CORES


@pytest.mark.parametrize("name", ["auto", "tpe", "random", "grid"])
def test_where_loading_computes_no_strategy_goes_beyond_the_cores(name: str) -> None:
    _, tried = study_of(name, COMPUTING, trials=int(SPACE.at_hand.size))
    assert {config.num_workers for config in tried} == {0, 1, 2, 4}
    assert len(set(tried)) == SPACE.at_hand.size, "all else is tried, each once"


@pytest.mark.parametrize("name", ["auto", "tpe", "random", "grid"])
def test_where_loading_waits_every_strategy_may(name: str) -> None:
    _, tried = study_of(name, WAITING, trials=int(SPACE.size))
    assert {8, 16, 32} <= {config.num_workers for config in tried}


def test_without_counted_cpu_seconds_nothing_is_released() -> None:
    study, tried = study_of("random", WAITING, trials=12, rates=False)
    assert max(config.num_workers for config in tried) <= CORES
    assert not loading_waits(study, space=SPACE, facts=FACTS)


def test_auto_goes_there_at_once_where_that_is_the_best() -> None:
    """Thirty-two processes that wait deliver 1,600 samples a second, four of them 200."""
    _, tried = study_of("auto", WAITING, trials=4)
    assert 32 in [config.num_workers for config in tried]


def test_what_computes_on_crowded_cores_releases_nothing() -> None:
    """On a CPU every fetch of a worker takes longer than it computes, as threads and processes share the cores."""
    facts = cpu_facts()
    world = Feeding(cores=4, compute_s=0.01, wait_s=0.0, step_s=1 / 200, on_cpu=True)
    space = space_of(facts, num_threads=4, pin_memory=False, fp32_precision=["ieee"])
    study = optuna.create_study(direction="maximize")
    for workers in (4, 4, 2):
        config = space.baseline.replace(num_workers=workers, prefetch_factor=2)
        study.enqueue_trial(space.indices_of(config))
        trial = study.ask(dict(space.distributions))
        assert space.config_at(trial.params) == config
        trial.set_user_attr(OBSERVATION, world.observed(config).to_dict())
        study.tell(trial, 1.0)
    assert not loading_waits(study, space=space, facts=facts)
