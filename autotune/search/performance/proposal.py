"""What to try next: the configurations with the largest expected improvement for the seconds they cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from random import Random

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from autotune.config import TrainConfig
from autotune.search.performance.batch import choose
from autotune.search.performance.model import PerformanceModel, Prediction
from autotune.search.performance.process import Array
from autotune.search.performance.remaining import left_to_gain
from autotune.search.space import Space
from autotune.stats import TIE

_MOST_CANDIDATES = 1_500
_BEST_TO_VARY = 3
_PAIRS_TO_VARY = 100
_COUNTABLE = 5_000
"""Points of a space that are all in the pool; of a larger space as many random ones."""
_MOST_TO_WEIGH = 128
"""Candidates whose promise is weighed together; the others promise less than each of them."""
_LITTLE = math.log(TIE)
"""Once no more is left to gain, as far as is known, the next trial changes all that no trial has changed: of what was
never tried, the model knows only what was expected of it."""
_LEAST_TO_WORK = 0.35
"""Probability to be measured and to meet the constraints: below it, a great promise would be tried all the same,
and its neighbour too."""
_FAILURES_TO_LEARN_FROM = 2
"""Trials that ran out of memory: they show where the wall is. From then on risks have to pay."""
_NO_RISK = 1e-3
"""Probability to run out of memory that is taken for nothing in return; a larger one for no smaller a probability to be
better than the best."""
_COMPILING_WEIGHT = 0.5
"""Weight of what compilation makes a trial dearer, as a logarithm; other seconds have 1: improvement per second. At 1
everything eager would be tried first, however little it promises; but one compiled trial tells of its whole cell, and
what is found is used for days."""


class Proposer:
    """Looks for the next trial: in the whole space if it is small, else in a random part of it and around the best."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._random = Random(seed)
        if space.only is not None:
            pool = sorted(space.only, key=TrainConfig.canonical_json)
        elif space.points <= _COUNTABLE:
            pool = space.configurations()
        else:
            pool = [self._anywhere() for _ in range(_COUNTABLE)]
        self._pool = [config for config in pool if space.allows(config)]
        self.left_to_gain = math.inf
        """ln(speed-up) over the best so far that all further trials can bring on average, when last asked."""

    def propose(
        self,
        model: PerformanceModel,
        tried: Sequence[TrainConfig],
        taken: set[TrainConfig],
        seconds_left: float,
        pending: Sequence[TrainConfig] = (),
        count: int = 1,
    ) -> list[TrainConfig]:
        """At most `count`, to be tried at the same time, the most promising first; none when nothing is left.

        `tried`: the measured ones that meet the constraints; `taken`: those that must not come again; `pending`:
        those of them in flight. Where nothing is likely to fit into the memory, the likeliest; where nothing fits into
        the time, the shortest.
        """
        before = model.predict(model.encoding.encode(tried)).mean
        best = float(before.max())
        leaders = [tried[place] for place in np.argsort(-before)[:_BEST_TO_VARY]]
        free = self._space_for(model)
        candidates = [config for config in self._candidates(leaders) if config not in taken and free.allows(config)]
        if not candidates:
            self.left_to_gain = 0.0
            return []
        encoded = model.encoding.encode(candidates)
        fits = model.memory.probability_to_fit(encoded)
        works = model.probability_to_work(encoded)
        predicted = model.predict(encoded)
        seconds = model.costs.seconds(candidates, predicted.step_s)
        allowed = _worth_the_risk(model, fits, predicted, best)
        allowed = allowed if allowed.any() else fits >= fits.max()
        likely = allowed & (works >= _LEAST_TO_WORK)
        allowed = likely if likely.any() else allowed
        in_time = allowed & (seconds <= seconds_left)
        if in_time.any():
            allowed = in_time
        else:
            allowed &= seconds <= seconds[allowed].min()
        left = np.maximum(1 - seconds / max(seconds_left, 1e-3), 0.01)  # what a long trial leaves for others to find
        eager_s = seconds - model.costs.compiling_s(candidates)
        cost = np.log(eager_s) + _COMPILING_WEIGHT * np.log(seconds / eager_s)
        worth = np.log(np.maximum(fits * works, 1e-9)) + np.log(left) - cost
        worth = np.where(allowed, worth, -math.inf)
        promise = np.where(allowed, log_expected_improvement(predicted.mean - best, predicted.doubt), -math.inf)
        weighed = [row for row in np.argsort(-promise)[:_MOST_TO_WEIGH] if allowed[row]]
        self.left_to_gain = left_to_gain(model, leaders, [candidates[row] for row in weighed], self._seed)
        if self.left_to_gain < _LITTLE:
            new = np.where(allowed, self._unvaried(candidates, taken), 0)
            if new.any():
                self.left_to_gain, worth = math.inf, np.where(new == new.max(), worth, -math.inf)

        def score(doubt: Array) -> Array:
            return worth + log_expected_improvement(predicted.mean - best, doubt)

        rows = choose(model, encoded, predicted.doubt, score, model.encoding.encode(pending), count)
        return [candidates[row] for row in rows]

    def worth_trying(
        self, model: PerformanceModel, tried: Sequence[TrainConfig], taken: set[TrainConfig]
    ) -> list[TrainConfig]:
        """What is neither `taken` nor likely to fail, in all of the space or in a part of it, as in `propose`."""
        before = model.predict(model.encoding.encode(tried)).mean
        leaders = [tried[place] for place in np.argsort(-before)[:_BEST_TO_VARY]]
        free = self._space_for(model)
        candidates = [config for config in self._candidates(leaders) if config not in taken and free.allows(config)]
        encoded = model.encoding.encode(candidates)
        fits = model.memory.probability_to_fit(encoded)
        risks = _worth_the_risk(model, fits, model.predict(encoded), float(before.max()))
        works = model.probability_to_work(encoded) >= _LEAST_TO_WORK
        return [config for config, may in zip(candidates, risks & works, strict=True) if may]

    def only_risks_left(
        self,
        model: PerformanceModel,
        tried: Sequence[TrainConfig],
        taken: set[TrainConfig],
        proposal: TrainConfig | None = None,
    ) -> bool:
        """Whether nothing that is not `taken` is worth the risk to run out of memory, beginning with `proposal`. For a
        large space, only a part of it is looked at."""
        if not model.memory.has_ended:
            return False
        best = float(model.predict(model.encoding.encode(tried)).mean.max())

        def are_risks(configs: Sequence[TrainConfig]) -> bool:
            encoded = model.encoding.encode(configs)
            fits = model.memory.probability_to_fit(encoded)
            return not _worth_the_risk(model, fits, model.predict(encoded), best).any()

        if proposal is not None and not are_risks([proposal]):
            return False
        left = self._left(model, taken)
        return bool(left) and are_risks(left)

    def nearest_that_fits(
        self, model: PerformanceModel, point: dict[str, int], taken: set[TrainConfig]
    ) -> dict[str, int]:
        """`point`; or, if it is likely to run out of memory, the nearest new point that is not, in steps between
        neighbouring values. `point` itself if there is none."""
        wanted = self._space.config_at(point)
        others = self._left(model, taken)
        chances = model.memory.probability_to_fit(model.encoding.encode([wanted, *others]))
        likely = chances >= model.memory.least_probability
        if likely[0] or not likely.any():
            return point

        def steps(config: TrainConfig) -> int:
            return sum(abs(index - point[name]) for name, index in self._space.indices_of(config).items())

        nearest = min((config for config, fits in zip(others, likely[1:], strict=True) if fits), key=steps)
        return self._space.indices_of(nearest)

    def _left(self, model: PerformanceModel, taken: set[TrainConfig]) -> list[TrainConfig]:
        free = self._space_for(model)
        return [config for config in self._pool if config not in taken and free.allows(config)]

    def _unvaried(self, candidates: Sequence[TrainConfig], taken: set[TrainConfig]) -> Array:
        """For each candidate, the number of knobs that it changes and that no trial has changed from the baseline's
        value."""
        varied = {knob for config in taken for knob in config.differences(self._space.baseline)}
        left = {dimension.knob for dimension in self._space.dimensions} - varied
        if not left:
            return np.zeros(len(candidates))
        return np.array([len(left & config.differences(self._space.baseline).keys()) for config in candidates], float)

    def _space_for(self, model: PerformanceModel) -> Space:
        """The space, without more loader processes than cores unless loading waits."""
        return self._space if model.loading.waits else self._space.at_hand

    def _candidates(self, leaders: Sequence[TrainConfig]) -> list[TrainConfig]:
        if len(self._pool) <= _MOST_CANDIDATES:
            return self._pool
        around = dict.fromkeys(config for leader in leaders for config in self._around(leader))
        allowed = dict.fromkeys(filter(self._space.allows, around))
        return list(allowed | dict.fromkeys(self._random.sample(self._pool, _MOST_CANDIDATES)))

    def _anywhere(self) -> TrainConfig:
        point = {
            name: self._random.randint(distribution.low, distribution.high)
            for name, distribution in self._space.distributions.items()
        }
        return self._space.config_at(point)

    def _around(self, config: TrainConfig) -> Iterator[TrainConfig]:
        """All configurations that differ in one knob, and some that differ in two."""
        here = self._space.indices_of(config)
        single = [
            {name: index}
            for name, distribution in self._space.distributions.items()
            for index in range(distribution.low, distribution.high + 1)
            if index != here[name]
        ]
        for change in single:
            yield self._space.config_at({**here, **change})
        for _ in range(_PAIRS_TO_VARY if single else 0):
            one, other = self._random.choice(single), self._random.choice(single)
            yield self._space.config_at({**here, **one, **other})


def _worth_the_risk(model: PerformanceModel, fits: Array, predicted: Prediction, best: float) -> npt.NDArray[np.bool_]:
    """Which rows are likely enough to fit into memory. `fits`: their probabilities. Once two trials have run out of
    memory, what a row promises counts too."""
    likely = np.asarray(fits >= model.memory.least_probability)
    if model.memory.failures < _FAILURES_TO_LEARN_FROM:
        return likely
    promise = ndtr((predicted.mean - best) / predicted.doubt)
    return np.asarray(likely & (1 - fits <= np.maximum(promise, _NO_RISK)))


def log_expected_improvement(gain: Array, doubt: Array) -> Array:
    """ln E[max(0, N(gain, doubt²))], without underflow where the gain is far below nothing.

    Jones, Schonlau & Welch, J. Global Optimization 13 (1998), equation 15; far in the tail its asymptote, as in
    Ament et al., "Unexpected Improvements to Expected Improvement" (NeurIPS 2023).
    """
    z = gain / doubt
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    plain = z * ndtr(z) + density
    tail = -0.5 * z**2 - 0.5 * math.log(2 * math.pi) - 2 * np.log(np.maximum(-z, 1.0))
    return np.asarray(np.log(doubt) + np.where(z > -8, np.log(np.maximum(plain, 1e-300)), tail))
