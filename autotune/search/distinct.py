"""A sampler around a sampler, that never proposes a configuration twice, and proposes the planned ones first."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from autotune.config import TrainConfig
from autotune.search.performance import Observation
from autotune.search.performance.sides import Aside
from autotune.search.space import Space


class DistinctSampler(BaseSampler):
    """Gives the inner sampler's proposal when it is new and allowed, else the nearest such one in steps between
    neighbouring values.

    Several points can mean one configuration, and a Gaussian process likes to come back to its optimum: both would
    spend seconds of training on what is known.
    """

    def __init__(
        self,
        inner: BaseSampler,
        space: Space,
        planned: Iterable[TrainConfig],
        seed: int,
        releases: Callable[[Study], bool] = lambda _study: True,
        least_gain: float = 0.0,
    ) -> None:
        """`releases`: whether the trials of a study have shown that what the space holds back can help.
        `least_gain`: ln(speed-up) for which further trials are made."""
        self._inner = inner
        self._space = space
        self._releases = releases
        self._least_gain = least_gain
        self.planned = list(planned)
        """Proposed first; what is added while a study runs is proposed next."""
        self._random = random.Random(seed)

    def reach(self, study: Study) -> Space:
        """What is worth a trial by now."""
        space = self._space
        return space if not space.held_back or self._releases(study) else space.at_hand

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._space.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        tried = tried_configs(study, self._space)
        for config in self.planned:
            if config not in tried:
                return self._space.indices_of(config)
        proposal = self._proposal(study, trial)
        if self._space.only is not None:
            return self._nearest_listed(proposal, self._space.only - tried)
        space = self.reach(study)
        around = self._around(space.nearest_allowed(proposal))
        new = (point for point in around if self._is_new(space, point, tried))
        return next(new, None) or self._fallback(space, proposal)

    def prediction(self, config: TrainConfig) -> dict[str, float] | None:
        """What the inner sampler expects of `config`, where it is one that predicts."""
        predict = getattr(self._inner, "prediction", None)
        return predict(config) if predict else None

    def learned(self, study: Study) -> dict[str, Any]:
        """What the inner sampler has learned from `study`, as `best.yaml` states it; empty if it cannot say."""
        say = getattr(self._inner, "learned", None)
        return say(study) if say else {}

    @property
    def gave_up(self) -> str | None:
        """Why the inner sampler no longer proposes by itself."""
        return getattr(self._inner, "gave_up", None)

    def learn_again(self, config: TrainConfig, seen: Observation) -> None:
        """From a run of the confirmation, where the inner sampler is one that learns from it."""
        learn = getattr(self._inner, "learn_again", None)
        if learn is not None:
            learn(config, seen)

    def learn_side(self, config: TrainConfig, seen: Observation) -> None:
        """From a run of one side alone, as `learn_again`."""
        learn = getattr(self._inner, "learn_side", None)
        if learn is not None:
            learn(config, seen)

    def next_side(self, study: Study) -> Aside | None:
        """One side that is to be measured before the next trial, where nothing is planned and the inner sampler is one
        that asks for sides."""
        ask = getattr(self._inner, "next_side", None)
        if ask is None or not set(self.planned) <= tried_configs(study, self._space):
            return None
        found: Aside | None = ask(study)
        return found

    def has_nothing_worth_trying(self, study: Study) -> bool:
        """Whether nothing is planned, and the inner sampler has found all that is left likely to fail, or to gain too
        little."""
        if not set(self.planned) <= tried_configs(study, self._space):
            return False
        look_ahead = getattr(self._inner, "look_ahead", None)
        if look_ahead is not None:
            look_ahead(study)
        return bool(getattr(self._inner, "only_risks_left", False)) or self.left_to_gain < self._least_gain

    @property
    def left_to_gain(self) -> float:
        """ln(speed-up) that all further trials can bring on average, when the inner sampler was last asked; infinite
        where it is none that can say."""
        return float(getattr(self._inner, "left_to_gain", math.inf))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._inner.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self._inner.reseed_rng()

    def _nearest_listed(self, proposal: dict[str, int], listed: Collection[TrainConfig]) -> dict[str, int]:
        """The nearest of `listed`, which a walk over the points between would take long to come upon."""
        if self._space.config_at(proposal) in listed:
            return proposal
        points = [self._space.indices_of(config) for config in sorted(listed, key=TrainConfig.canonical_json)]
        self._random.shuffle(points)

        def steps(point: dict[str, int]) -> int:
            return sum(abs(index - proposal[name]) for name, index in point.items())

        return min(points, key=steps, default=proposal)

    def _is_new(self, space: Space, point: dict[str, int], tried: Collection[TrainConfig]) -> bool:
        config = space.config_at(point)
        return config not in tried and space.allows(config)

    def _fallback(self, space: Space, proposal: dict[str, int]) -> dict[str, int]:
        """Once all that is allowed has been tried."""
        return proposal if space.allows(space.config_at(proposal)) else dict(space.baseline_indices)

    def _proposal(self, study: Study, trial: FrozenTrial) -> dict[str, int]:
        point = self._inner.sample_relative(study, trial, self._inner.infer_relative_search_space(study, trial))
        for name, distribution in self._space.distributions.items():
            if name not in point:
                point[name] = self._inner.sample_independent(study, trial, name, distribution)
        return point

    def _around(self, start: Mapping[str, int]) -> Iterator[dict[str, int]]:
        """All points, nearest first: breadth first over single steps along one dimension."""
        seen = {tuple(sorted(start.items()))}
        ring = [dict(start)]
        while ring:
            yield from ring
            following: list[dict[str, int]] = []
            for point in ring:
                for neighbour in self._neighbours(point):
                    key = tuple(sorted(neighbour.items()))
                    if key not in seen:
                        seen.add(key)
                        following.append(neighbour)
            self._random.shuffle(following)
            ring = following

    def _neighbours(self, point: Mapping[str, int]) -> Iterator[dict[str, int]]:
        for name, distribution in self._space.distributions.items():
            for index in (point[name] - 1, point[name] + 1):
                if distribution.low <= index <= distribution.high:
                    yield {**point, name: index}


def tried_configs(study: Study, space: Space) -> set[TrainConfig]:
    """What has been measured, has failed by its own doing, or is running.

    A trial told FAIL was a zombie or interrupted: it says nothing about its configuration, which may come again.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING))
    return {space.config_at(trial.params) for trial in trials if trial.params.keys() == space.distributions.keys()}
