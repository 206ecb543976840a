"""The sampler that proposes no configuration twice."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna import Study
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState
from support.facts import cpu_facts

from autotune.config import TrainConfig
from autotune.search.build_space import build_space
from autotune.search.distinct import DistinctSampler, tried_configs
from autotune.search.space import Space
from autotune.spec import parse_spec


def space_of(**search: Any) -> Space:
    held: dict[str, Any] = {
        knob: value for knob, value in TrainConfig(num_threads=4).to_dict().items() if value is not None
    }
    whole = {
        "model": {"timm": "resnet18"},
        "data": {"synthetic": {"image_size": 64}},
        "training": {"effective_batch_size": "free"},
        "budget": "10m",
        "search": held | {"prefetch_factor": 2} | search,
    }
    return build_space(parse_spec(whole, "."), cpu_facts())


def plain_space() -> Space:
    """12 points, each a configuration of its own."""
    return space_of(micro_batch_size=[8, 16, 32, 64], num_threads=[1, 2, 4])


def aliased_space() -> Space:
    """12 points, 8 configurations: a prefetch factor without workers means nothing."""
    return space_of(num_workers=[0, 2], prefetch_factor=[2, 4, 8], amp_dtype=["none", "bf16"])


class Stubborn(BaseSampler):
    """Always proposes one point."""

    def __init__(self, point: dict[str, int]) -> None:
        self.point = point
        self.told: list[TrialState] = []

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> int:
        return self.point[param_name]

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self.told.append(state)


def study_of(space: Space, inner: BaseSampler, planned: list[TrainConfig] | None = None, seed: int = 0) -> Study:
    return optuna.create_study(sampler=DistinctSampler(inner, space, planned or [], seed), direction="maximize")


def ask(study: Study, space: Space) -> optuna.Trial:
    return study.ask(dict(space.distributions))


def run(study: Study, space: Space, count: int) -> list[dict[str, int]]:
    """The points of that many trials, each told a value."""
    asked = []
    for _ in range(count):
        trial = ask(study, space)
        asked.append(dict(trial.params))
        study.tell(trial, 1.0)
    return asked


@pytest.mark.parametrize("space", [plain_space(), aliased_space()], ids=["plain", "aliased"])
@pytest.mark.parametrize("seed", range(3))
def test_the_whole_space_once_and_nothing_twice(space: Space, seed: int) -> None:
    study = study_of(space, RandomSampler(seed=seed), seed=seed)
    asked = run(study, space, int(space.size))
    configs = [space.config_at(point) for point in asked]
    assert len(set(configs)) == len(configs) == space.size
    assert tried_configs(study, space) == set(configs)


def test_the_planned_come_first_in_their_order() -> None:
    space = plain_space()
    planned = [space.baseline.replace(micro_batch_size=size) for size in (32, 64, 8)]
    study = study_of(space, RandomSampler(seed=0), planned)
    configs = [space.config_at(point) for point in run(study, space, 6)]
    assert configs[:3] == planned
    assert not set(configs[3:]) & set(planned)


def test_planned_ones_that_have_been_tried_are_passed_over() -> None:
    space = plain_space()
    first, second = (space.baseline.replace(micro_batch_size=size) for size in (32, 64))
    study = study_of(space, RandomSampler(seed=0), [first, first, second])
    assert [space.config_at(point) for point in run(study, space, 2)] == [first, second]


def test_a_new_proposal_is_taken_as_it_is() -> None:
    space = plain_space()
    point = {"micro_batch_size": 2, "num_threads": 1}
    assert run(study_of(space, Stubborn(point)), space, 1) == [point]


def steps_between(one: dict[str, int], other: dict[str, int]) -> int:
    return sum(abs(one[knob] - other[knob]) for knob in one)


@pytest.mark.parametrize(
    "start", [{"micro_batch_size": 0, "num_threads": 0}, {"micro_batch_size": 2, "num_threads": 1}]
)
def test_a_known_proposal_goes_to_the_nearest_that_is_new(start: dict[str, int]) -> None:
    space = plain_space()
    asked = run(study_of(space, Stubborn(start)), space, 12)
    distances = [steps_between(point, start) for point in asked]
    assert distances == sorted(distances)
    assert distances[:3] == [0, 1, 1]


def test_points_that_mean_one_configuration_count_as_one() -> None:
    space = aliased_space()
    start = {"num_workers": 0, "prefetch_factor": 0, "amp_dtype": 0}
    asked = run(study_of(space, Stubborn(start)), space, 3)
    configs = [space.config_at(point) for point in asked]
    assert {(config.num_workers, config.amp_dtype) for config in configs} == {(0, "none"), (2, "none"), (0, "bf16")}


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING])
def test_what_was_measured_or_is_running_does_not_come_again(state: TrialState) -> None:
    space = plain_space()
    study = study_of(space, Stubborn({"micro_batch_size": 1, "num_threads": 1}))
    first = ask(study, space)
    if state is TrialState.COMPLETE:
        study.tell(first, 1.0)
    elif state is TrialState.PRUNED:
        study.tell(first, state=TrialState.PRUNED)
    assert space.config_at(ask(study, space).params) != space.config_at(first.params)


def test_what_was_interrupted_may_come_again() -> None:
    space = plain_space()
    planned = [space.baseline.replace(micro_batch_size=8)]
    study = study_of(space, Stubborn({"micro_batch_size": 3, "num_threads": 2}), planned)
    first = ask(study, space)
    study.tell(first, state=TrialState.FAIL)
    assert tried_configs(study, space) == set()
    assert ask(study, space).params == first.params
    second = ask(study, space)
    study.tell(second, state=TrialState.FAIL)
    assert ask(study, space).params == second.params


def test_trials_over_other_knobs_are_no_part_of_the_space() -> None:
    space = plain_space()
    study = study_of(space, Stubborn({"micro_batch_size": 0, "num_threads": 0}))
    study.add_trial(
        optuna.trial.create_trial(
            params={"micro_batch_size": 0}, distributions={"micro_batch_size": IntDistribution(0, 3)}, value=1.0
        )
    )
    assert tried_configs(study, space) == set()


def test_a_space_that_is_used_up_still_answers() -> None:
    space = space_of(amp_dtype=["none", "bf16"])
    study = study_of(space, Stubborn({"amp_dtype": 1}))
    assert run(study, space, 3)[2] == {"amp_dtype": 1}


def test_a_seed_repeats_the_choice_among_equally_near_points() -> None:
    space = plain_space()

    def walk(seed: int) -> list[dict[str, int]]:
        return run(study_of(space, Stubborn({"micro_batch_size": 1, "num_threads": 1}), seed=seed), space, 12)

    assert walk(1) == walk(1)
    assert len({str(walk(seed)) for seed in range(5)}) > 1


def test_the_inner_sampler_is_told_what_came_of_it() -> None:
    space = plain_space()
    inner = Stubborn({"micro_batch_size": 0, "num_threads": 0})
    study = study_of(space, inner)
    run(study, space, 1)
    study.tell(ask(study, space), state=TrialState.PRUNED)
    assert inner.told == [TrialState.COMPLETE, TrialState.PRUNED]
