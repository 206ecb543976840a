"""The choice of the next trial: what it is worth, what it costs, what it may not be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm
from search.performance.test_model import HERE, SPACE, model_of, observed, truly
from support import worlds
from support.facts import cpu_facts

from autotune.config import TrainConfig
from autotune.search import Space, build_space
from autotune.search.performance import PerformanceModel
from autotune.search.performance.proposal import Proposer, log_expected_improvement
from autotune.search.performance.remaining import left_to_gain
from autotune.spec import parse_spec


@pytest.mark.parametrize("gain", [-3.0, -0.5, 0.0, 0.4, 2.0])
@pytest.mark.parametrize("doubt", [0.05, 0.3, 1.0])
def test_expected_improvement_is_the_integral_it_stands_for(gain: float, doubt: float) -> None:
    grid = np.linspace(0, max(gain, 0) + 12 * doubt, 200_001)
    mean = np.trapezoid(grid * norm.pdf(grid, gain, doubt), grid)
    value = float(np.exp(log_expected_improvement(np.array([gain]), np.array([doubt])))[0])
    assert value == pytest.approx(mean, rel=2e-2, abs=1e-15)


def test_far_below_nothing_it_still_ranks() -> None:
    values = log_expected_improvement(np.array([-20.0, -30.0, -300.0]), np.array([1.0, 1.0, 1.0]))
    assert np.isfinite(values).all()
    assert values[0] > values[1] > values[2]


def test_what_was_taken_does_not_come_again() -> None:
    model, proposer = model_of(HERE), Proposer(SPACE, seed=0)
    taken = {HERE}
    for _ in range(12):
        (config,) = proposer.propose(model, [HERE], taken, math.inf)
        assert config not in taken
        taken.add(config)


def test_nothing_left_is_nothing() -> None:
    assert Proposer(SPACE, seed=0).propose(model_of(HERE), [HERE], set(SPACE.configurations()), math.inf) == []


def test_where_nothing_fits_into_the_time_the_shortest_is_proposed() -> None:
    model = model_of(HERE)
    (config,) = Proposer(SPACE, seed=0).propose(model, [HERE], {HERE}, 0.01)
    table = model.encoding.encode([config, HERE.replace(micro_batch_size=128, grad_accum_steps=4, num_threads=1)])
    chosen_s, long_s = model.costs.seconds([config, HERE], model.predict(table).step_s)
    assert chosen_s < long_s


def test_a_compilation_has_to_be_worth_its_time() -> None:
    """Half a minute of compiling with ten minutes left; not with twenty seconds."""
    search = worlds.CPU_SPEC["search"] | {"compile": ["none", "default"], "activation_checkpointing": [False, True]}
    space = build_space(parse_spec(worlds.CPU_SPEC | {"search": search}, "."), cpu_facts())
    model = PerformanceModel(space, cpu_facts())
    best = HERE.replace(amp_dtype="bf16", memory_format="channels_last", micro_batch_size=64)
    tried = [HERE, best, HERE.replace(micro_batch_size=64)]
    model.fit([(config, observed(config)) for config in tried])
    compiled, rival = best.replace(compile="default"), best.replace(activation_checkpointing=True)
    taken = set(space.configurations()) - {compiled, rival}
    proposer = Proposer(space, seed=0)
    assert proposer.propose(model, tried, taken, 600.0) == [compiled]
    assert proposer.propose(model, tried, taken, 20.0) == [rival]


def test_a_space_too_large_to_list_is_searched_around_the_best() -> None:
    search = worlds.CPU_SPEC["search"] | {"micro_batch_size": {"min": 1, "max": 200, "step": 1}}
    space = build_space(parse_spec(worlds.CPU_SPEC | {"search": search}, "."), cpu_facts())
    assert space.points > 5_000
    model = PerformanceModel(space, cpu_facts())
    tried = [HERE, HERE.replace(amp_dtype="bf16", memory_format="channels_last")]
    model.fit([(config, observed(config)) for config in tried])
    (config,) = Proposer(space, seed=0).propose(model, tried, set(tried), math.inf)
    assert config.amp_dtype == "bf16"
    assert config.effective_batch_size > HERE.effective_batch_size


def everything(space: Space) -> list[TrainConfig]:
    return [config for config in space.configurations() if space.at_hand.allows(config)]


def test_what_is_left_to_gain_is_the_most_that_any_number_of_trials_can_bring() -> None:
    """After all but the best have been measured it is what the best gains; after all of them, nothing."""
    configs = sorted(everything(SPACE), key=truly, reverse=True)
    best, others = configs[0], configs[1:]
    gain = math.log(truly(best) / truly(others[0]))
    assert left_to_gain(model_of(*others), others[:1], [best], seed=0) == pytest.approx(gain, abs=0.03)
    assert left_to_gain(model_of(*configs), [best], others, seed=0) < 0.01
    assert left_to_gain(model_of(*configs), [best], [], seed=0) == 0


def test_much_is_left_to_gain_while_little_is_known() -> None:
    others = [config for config in everything(SPACE) if config != HERE]
    assert left_to_gain(model_of(HERE), [HERE], others, seed=0) > 0.5
    third, left = others[::3], [config for config in others if config not in others[::3]]
    leaders = sorted(third, key=truly)[-3:]
    gain = math.log(max(map(truly, left)) / truly(leaders[-1]))
    assert left_to_gain(model_of(HERE, *third), leaders, left, seed=0) == pytest.approx(gain, abs=0.1)


def test_the_proposer_says_what_is_left_to_gain() -> None:
    proposer, configs = Proposer(SPACE, seed=0), everything(SPACE)
    proposer.propose(model_of(HERE), [HERE], {HERE}, math.inf)
    assert 0.01 < proposer.left_to_gain < math.inf
    proposer.propose(model_of(*configs), configs, set(configs), math.inf)
    assert proposer.left_to_gain == 0


def test_what_no_trial_has_changed_is_changed_before_little_is_left() -> None:
    """Of `num_threads`, nothing has been seen: all that was tried has the baseline's."""
    same = [config for config in everything(SPACE) if config.num_threads == SPACE.baseline.num_threads]
    proposer = Proposer(SPACE, seed=0)
    (config,) = proposer.propose(model_of(*same), same, set(same), math.inf)
    assert config.num_threads != SPACE.baseline.num_threads
    assert proposer.left_to_gain > 0.01
