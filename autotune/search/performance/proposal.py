"""What to try next: the configuration whose expected improvement is the largest for the seconds it costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from scipy.special import ndtr

from autotune.config import TrainConfig
from autotune.search.performance.model import PerformanceModel
from autotune.search.performance.process import Array
from autotune.search.space import Space

_MOST_CANDIDATES = 2_000
_BEST_TO_VARY = 3
_COUNTABLE = 5_000
import os

_COST_WEIGHT = float(os.environ.get("CW", "0.5"))


@dataclass(frozen=True)
class Proposal:
    config: TrainConfig
    improvement: float
    """Expected gain of ln(throughput) over the best so far."""


class Proposer:
    """Looks over a space for the next trial: over all of it where it is small, else over a random part and the
    surroundings of the best."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._random = Random(seed)
        self._all = space.configurations() if space.points <= _COUNTABLE else None

    def propose(
        self, model: PerformanceModel, tried: Sequence[TrainConfig], taken: set[TrainConfig], seconds_left: float
    ) -> Proposal | None:
        """`tried`: those with a figure, in any order; `taken`: those that must not come again. None when nothing is
        left that fits into the memory and the time."""
        before = model.predict(model.encoding.table(tried)).mean
        best = float(before.max())
        leaders = [tried[place] for place in np.argsort(-before)[:_BEST_TO_VARY]]
        candidates = [
            config for config in self._candidates(leaders) if config not in taken and self._space.allows(config)
        ]
        if not candidates:
            return None
        table = model.encoding.table(candidates)
        chances = model.memory.probability_to_fit(table)
        step_s = model.step_s(table)
        seconds = model.costs.seconds(candidates, step_s)
        allowed = (chances >= model.memory.least_probability) & (seconds <= seconds_left)
        if not allowed.any():
            return None
        mean, doubt = model.predict(table)
        gain = log_expected_improvement(mean - best, doubt)
        score = np.where(allowed, gain + np.log(np.maximum(chances, 1e-9)) - _COST_WEIGHT * np.log(seconds), -math.inf)
        place = int(np.argmax(score))
        return Proposal(candidates[place], float(np.exp(gain[place])))

    def _candidates(self, leaders: Sequence[TrainConfig]) -> list[TrainConfig]:
        everything = self._all
        if everything is not None and len(everything) <= _MOST_CANDIDATES:
            return everything
        found = dict.fromkeys(config for leader in leaders for config in self._around(leader))
        if everything is not None:
            found |= dict.fromkeys(self._random.sample(everything, _MOST_CANDIDATES))
        else:
            found |= dict.fromkeys(self._space.config_at(self._point()) for _ in range(_MOST_CANDIDATES))
        return list(found)

    def _point(self) -> dict[str, int]:
        return {
            name: self._random.randint(distribution.low, distribution.high)
            for name, distribution in self._space.distributions.items()
        }

    def _around(self, config: TrainConfig) -> Iterator[TrainConfig]:
        """All that differ in one knob or in two."""
        here = self._space.indices_of(config)
        single = [
            {name: index}
            for name, distribution in self._space.distributions.items()
            for index in range(distribution.low, distribution.high + 1)
            if index != here[name]
        ]
        for number, change in enumerate(single):
            yield self._space.config_at({**here, **change})
            for other in single[number + 1 :]:
                if other.keys() != change.keys():
                    yield self._space.config_at({**here, **change, **other})


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
