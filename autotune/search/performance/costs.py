"""What a trial of a configuration would cost, compilation included."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np

from autotune.config import TrainConfig
from autotune.records import TrialStatus
from autotune.search.performance.observation import Observation
from autotune.search.performance.process import Array

_COMPILE_S = {"none": 0.0, "default": 30.0, "reduce-overhead": 40.0, "max-autotune": 120.0}
_COMPILE_DOUBT, _COMPILE_NOISE = 0.6, 0.3
"""Doubt about the logarithm of a compilation's seconds: between models; between trials of one model."""
_FEWEST_STEPS = 5
"""Optimizer steps of a trial after its first: warm-up and blocks."""
_USUAL_OVERHEAD_S, _USUAL_TIMED_S = 0.5, 2.0


class TrialCosts:
    """Seconds of trials, from the request to the end of the process."""

    def __init__(self, trials: Sequence[tuple[TrainConfig, Observation]]) -> None:
        done = [(config, seen) for config, seen in trials if seen.has_figure]
        self._overhead_s = statistics.median([seen.overhead_s for _, seen in done] or [_USUAL_OVERHEAD_S])
        timed = [seen.wall_s - seen.overhead_s - (seen.first_step_s or 0.0) for _, seen in done]
        self._timed_s = max(statistics.median(timed or [_USUAL_TIMED_S]), 0.1)
        self._compile_s = {
            mode: _compile_s(usual_s, [_compiling_s(seen) for config, seen in trials if config.compile == mode])
            for mode, usual_s in _COMPILE_S.items()
        }

    def seconds(self, configs: Sequence[TrainConfig], step_s: Array) -> Array:
        """`step_s`: the predicted seconds of one optimizer step of each."""
        timed = np.maximum(self._timed_s, _FEWEST_STEPS * step_s)
        return np.asarray(self._overhead_s + self.compiling_s(configs) + step_s + timed)

    def compiling_s(self, configs: Sequence[TrainConfig]) -> Array:
        """The part of `seconds` that goes into compilation."""
        return np.array([self._compile_s[config.compile] for config in configs])


def _compiling_s(seen: Observation) -> float | None:
    """Seconds of compilation. For a trial that was killed before its first step: at least the time that it had."""
    if seen.status == TrialStatus.TIMEOUT and seen.first_step_s is None:
        return seen.wall_s
    return seen.first_step_s


def _compile_s(usual_s: float, seen: Sequence[float | None]) -> float:
    if not usual_s:
        return 0.0
    values = [math.log(max(seconds, 0.1)) for seconds in seen if seconds is not None]
    precision = 1 / _COMPILE_DOUBT**2 + len(values) / _COMPILE_NOISE**2
    return math.exp((math.log(usual_s) / _COMPILE_DOUBT**2 + math.fsum(values) / _COMPILE_NOISE**2) / precision)
