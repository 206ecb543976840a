"""The default: a performance model that knows how training behaves, asked for the best use of the next seconds.

After each trial the model of `search/performance` is fitted to all trials so far; the next is the configuration of the
largest expected improvement, weighed against the seconds that it would cost. Where the model turns out to predict
badly, Optuna's Gaussian process takes over, from the same trials.
"""

from __future__ import annotations

import logging
import math
import statistics
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import ThreadpoolController

from autotune.config import TrainConfig
from autotune.records import Facts
from autotune.search.performance import OBSERVATION, PREDICTED, Observation, PerformanceModel
from autotune.search.performance.learned import learned
from autotune.search.performance.model import log_interval
from autotune.search.performance.proposal import Proposer
from autotune.search.performance.repeats import Run
from autotune.search.performance.sides import Aside, propose_side
from autotune.search.space import Space
from autotune.search.strategies import gp
from autotune.search.strategies.options import build_with
from autotune.search.strategies.strategy import Learning, Strategy, StrategyContext

log = logging.getLogger(__name__)

_FROM_ONE_FIT = 1 / 4
"""Proposals after the first that one fit makes, as a share of the trials in flight: the more of these there are, the
less does what one of them tells change about the next."""
_MOST_TO_FIT = 256
"""Trials: what a fit takes grows with the third power of their number, what it finds out hardly at all."""
_FEWEST_TO_END = 6
"""Measured trials before the model is trusted when it says that nothing is left to gain."""
_LARGEST_SURPRISE = 3.0
"""Root mean square of the standardised errors of the predictions so far, beyond which the model is given up."""


class _Learnt(NamedTuple):
    best: TrainConfig
    tried: list[TrainConfig]
    """Measured trials that meet the constraints, if any do."""
    pending: list[TrainConfig]
    taken: set[TrainConfig]
    trials: list[Run]
    """That the model was fitted to."""
    told: int
    """Trials that have ended."""


class _Plan(NamedTuple):
    """What the last fit proposed."""

    proposals: Sequence[TrainConfig]
    told: int
    """Trials that it was made from; with as many more as it is for, it is out of date."""
    length: int


class AutoSampler(BaseSampler):
    """Proposes from the performance model; from `fallback` where there is nothing to fit one to, or it fails.

    All that it knows of trials it reads from the study, but for further runs of them: it works with any storage, after
    a resume, and with several trials in flight. Over parameters that are not those of `space` it is its fallback.
    """

    def __init__(
        self,
        space: Space,
        facts: Facts,
        fallback: BaseSampler,
        *,
        seed: int = 0,
        seconds_left: Callable[[], float] = lambda: math.inf,
        distrust_after: int = 25,
        least_skill: float = 0.1,
    ) -> None:
        """`distrust_after`: trials before the model may be given up. `least_skill`: share of the variance between
        trials that it has to explain by then."""
        self._space = space
        self._fallback = fallback
        self._seconds_left = seconds_left
        self._distrust_after = distrust_after
        self._least_skill = least_skill
        self._model = PerformanceModel(space, facts)
        self._proposer = Proposer(space, seed)
        self._threads = ThreadpoolController()
        self._fitted = False
        self._knows_enough = False
        self._plan = _Plan([], 0, 0)
        self._learnt: _Learnt | None = None
        self._seed = seed
        self._again: list[Run] = []
        self._sides: list[Run] = []
        self._looked_at: tuple[int, int, tuple[tuple[int, TrialState], ...]] | None = None
        self.gave_up: str | None = None
        """Why the fallback proposes; None while the model does."""
        self.only_risks_left = False
        """Whether nothing that is left to propose is worth the risk to run out of memory."""

    @property
    def left_to_gain(self) -> float:
        """ln(speed-up) over the best so far that all further trials can bring on average; infinite where no model
        says it, or there are too few trials to believe it, or none that meets the constraints."""
        return self._proposer.left_to_gain if self._knows_enough and self.gave_up is None else math.inf

    @property
    def model(self) -> PerformanceModel | None:
        """As last fitted; None before the first measured trial."""
        return self._model if self._fitted else None

    def prediction(self, config: TrainConfig) -> dict[str, float] | None:
        """What the model now expects of a run of `config`, with its 95 % interval; None while there is none."""
        model = self.model
        if model is None:
            return None
        expected = model.predict(model.encoding.encode([config]))
        doubt = math.hypot(float(expected.doubt[0]), model.noise)
        value, low, high = log_interval(float(expected.mean[0]), doubt)
        return {"samples_per_s": value, "low": low, "high": high}

    def learned(self, study: Study) -> dict[str, Any]:
        """What the model has learned from all trials of `study`, as `best.yaml` states it; empty before the first."""
        learnt = self._learn(study.get_trials(deepcopy=False))
        return learned(self._model, self._space, learnt.best) if learnt else {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        if self._is_about(study):
            return dict(self._space.distributions)
        return self._fallback.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if search_space != self._space.distributions:
            return self._fallback.sample_relative(study, trial, search_space)
        others = [one for one in study.get_trials(deepcopy=False) if one.number != trial.number]
        self._look(others)
        config = self._planned(others)
        if config is not None:
            return self._space.indices_of(config)
        point, learnt = self._from_fallback(study, trial, search_space), self._learnt
        return self._proposer.nearest_that_fits(self._model, point, learnt.taken) if learnt and point else point

    def look_ahead(self, study: Study) -> None:
        """Decide what is proposed next, so that `left_to_gain` and `only_risks_left` tell before a trial is begun."""
        self._look(study.get_trials(deepcopy=False))

    def next_side(self, study: Study) -> Aside | None:
        """One side of a configuration that is worth measuring before the next trial, if there is any."""
        self._look(study.get_trials(deepcopy=False))
        learnt = self._learnt
        if learnt is None or learnt.pending or self.gave_up is not None:
            return None
        with self._threads.limit(limits=1):
            return propose_side(
                self._proposer,
                self._model,
                tried=learnt.tried,
                taken=learnt.taken,
                trials=learnt.trials,
                sides=self._sides,
                seconds_left=self._seconds_left(),
                seed=self._seed,
            )

    def learn_side(self, config: TrainConfig, seen: Observation) -> None:
        """From a run that has measured one side alone, of which Optuna's study does not know."""
        self._sides.append((config, seen))

    def learn_again(self, config: TrainConfig, seen: Observation) -> None:
        """From a further run of a configuration that had its trial: one of the confirmation, of which Optuna's study
        does not know."""
        self._again.append((config, seen))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._fallback.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._fallback.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._fallback.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self._fallback.reseed_rng()

    def _from_fallback(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Only within `search_space`: in a study of other parameters a trial of another thread may just have ended, and
        the fallback has them in its own space now."""
        own = self._fallback.infer_relative_search_space(study, trial)
        return self._fallback.sample_relative(
            study, trial, {name: distribution for name, distribution in own.items() if name in search_space}
        )

    def _is_about(self, study: Study) -> bool:
        trials = study.get_trials(deepcopy=False)
        return all(trial.params.keys() <= self._space.distributions.keys() for trial in trials)

    def _planned(self, trials: Sequence[FrozenTrial]) -> TrainConfig | None:
        """The next of the plan, unless it is out of date."""
        plan = self._plan
        if not plan.proposals or sum(OBSERVATION in trial.user_attrs for trial in trials) - plan.told >= plan.length:
            return None
        taken = {self._space.config_at(trial.params) for trial in self._ours(trials)}
        return next((config for config in plan.proposals if config not in taken), None)

    def _look(self, trials: Sequence[FrozenTrial]) -> None:
        """Learn from `trials`, and plan; once for the same ones."""
        ended = tuple((trial.number, trial.state) for trial in trials)
        state = len(self._again), len(self._sides), ended
        if state == self._looked_at:
            return
        if self._looked_at and self._looked_at[:2] != state[:2]:
            self._plan = _Plan([], 0, 0)
        self._looked_at, self._learnt = state, None
        # Matrices of a few hundred rows: more threads gain nothing, and wait for one another where the cores are busy.
        with self._threads.limit(limits=1):
            if self._planned(trials) is not None:
                return
            self._learnt = learnt = self._learn(trials)
            if learnt is None:
                return
            proposals = self._propose(learnt) if self.gave_up is None else []
            first = proposals[0] if proposals else None
            self.only_risks_left = self._proposer.only_risks_left(self._model, learnt.tried, learnt.taken, first)

    def _propose(self, learnt: _Learnt) -> list[TrainConfig]:
        """The next trial, and the plan for those after it; none where nothing is left."""
        count = 1 + int(_FROM_ONE_FIT * len(learnt.pending))
        proposals = self._proposer.propose(
            self._model, learnt.tried, learnt.taken, self._seconds_left(), learnt.pending, count
        )
        self._plan = _Plan(proposals, learnt.told, count)
        return proposals

    def _ours(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        return [trial for trial in trials if trial.params.keys() == self._space.distributions.keys()]

    def _learn(self, trials: Sequence[FrozenTrial]) -> _Learnt | None:
        """Fit the model to `trials`, and see whether it holds; None where there is no figure to fit it to."""
        space, model = self._space, self._model
        ours = self._ours(trials)
        ended = [trial for trial in ours if OBSERVATION in trial.user_attrs]
        observed = [Observation.from_dict(trial.user_attrs[OBSERVATION]) for trial in ended]
        kept = _most_telling(observed)
        told, seen = [ended[place] for place in kept], [observed[place] for place in kept]
        configs = [space.config_at(trial.params) for trial in told]
        figures = [place for place, one in enumerate(seen) if one.has_figure]
        if not figures:
            return None
        pending = [space.config_at(trial.params) for trial in ours if trial.state is TrialState.RUNNING]
        violations = [_violations(trial) for trial in told]
        runs = list(zip(configs, seen, strict=True))
        model.fit(runs, violations, self._again, sides=self._sides[-_MOST_TO_FIT:])
        self._fitted = True
        if self.gave_up is None:
            self.gave_up = self._fault(model, list(zip(observed, ended, strict=True)))
            if self.gave_up:
                log.info("auto stopped using its performance model: %s; Optuna's GPSampler took over", self.gave_up)
        eligible = [place for place in figures if max(violations[place], default=0.0) <= 0]
        tried = [configs[place] for place in eligible or figures]
        telling = [one for one in (*observed, *(one for _, one in self._sides)) if one.has_step or one.has_loading]
        self._knows_enough = bool(eligible) and len(telling) >= _FEWEST_TO_END
        best = tried[int(np.argmax(model.predict(model.encoding.encode(tried)).mean))]
        too_large = {config for config, one in self._sides if one.is_oom}
        taken = {space.config_at(trial.params) for trial in ended} | set(pending) | too_large
        return _Learnt(best, tried, pending, taken, runs, len(ended))

    def _fault(self, model: PerformanceModel, seen: Sequence[tuple[Observation, FrozenTrial]]) -> str | None:
        """What speaks against the model, once there are trials enough to say so."""
        if sum(observation.has_figure for observation, _ in seen) < self._distrust_after:
            return None
        recent = _surprises(seen)[-self._distrust_after :]
        size = math.sqrt(statistics.fmean(recent)) if len(recent) >= self._distrust_after else 0.0
        if size > _LARGEST_SURPRISE:
            return f"its last {len(recent)} predictions were wrong by {size:.1f} times their own uncertainty"
        skill = model.skill()
        if skill < self._least_skill:
            return f"it explains {100 * max(skill, 0):.0f} % of the differences between trials"
        return None


def _most_telling(seen: Sequence[Observation]) -> list[int]:
    """Places of those to fit to, in their order: all, or where they are too many the fastest, and of the others, from
    the slowest on, one in so many. Trials without a measurement are slowest."""
    speeds = [one.samples_per_s or 0.0 for one in seen]
    order = sorted(range(len(seen)), key=lambda place: -speeds[place])
    fastest, others = order[: _MOST_TO_FIT // 2], order[_MOST_TO_FIT // 2 :]
    step = math.ceil(len(others) / (_MOST_TO_FIT // 2)) or 1
    return sorted([*fastest, *others[::-1][::step]])


def _violations(trial: FrozenTrial) -> list[float]:
    """Violations of the constraints on measures, always in the same order, whatever order the storage has."""
    return [violation for name, violation in sorted(trial.constraints.items()) if name != "stable"]


def _surprises(seen: Sequence[tuple[Observation, FrozenTrial]]) -> list[float]:
    """Mean squares of the standardised errors, one for all predictions that knew of the same trials: these share what
    was unknown, and are wrong together."""
    ends = sorted(trial.datetime_complete for _, trial in seen if trial.datetime_complete)
    alike: dict[int, list[float]] = {}
    for observation, trial in seen:
        surprise = _surprise(observation, trial)
        if surprise is not None and trial.datetime_start:
            alike.setdefault(bisect_left(ends, trial.datetime_start), []).append(surprise**2)
    return [statistics.fmean(alike[known]) for known in sorted(alike)]


def _surprise(observation: Observation, trial: FrozenTrial) -> float | None:
    """How many of its own standard deviations a prediction was off by."""
    predicted = trial.user_attrs.get(PREDICTED)
    if not predicted or observation.samples_per_s is None:
        return None
    doubt = math.log(predicted["high"] / predicted["low"]) / (2 * 1.96)
    return math.log(observation.samples_per_s / predicted["samples_per_s"]) / doubt


def build(context: StrategyContext) -> BaseSampler:
    def auto(*, distrust_after: int = 25, least_skill: float = 0.1) -> BaseSampler:
        for name, value in (("distrust_after", distrust_after), ("least_skill", least_skill)):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} must be a number, not {value!r}")
        return AutoSampler(
            context.space,
            context.facts,
            gp.build(StrategyContext(space=context.space, facts=context.facts, seed=context.seed)),
            seed=context.seed,
            seconds_left=context.seconds_left,
            distrust_after=distrust_after,
            least_skill=least_skill,
        )

    return build_with(auto, context.args)


STRATEGY = Strategy(
    name="auto",
    build=build,
    learns_failures_as=Learning.WORST_VALUE,
    begins_by_itself=True,
)
