"""What runs will cost, judged by the trials so far. Used to plan the confirmation inside the budget."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import cached_property

from autotune.config import TrainConfig
from autotune.execution import cost_of
from autotune.records import TrialRecord, TrialResult
from autotune.search.figures import samples_per_s
from autotune.search.policy import FEWEST_STEPS, SHORTEST_RUN_S, SPARE

_RECENT = 7
"""Search trials that say in which kind of process runs are made now, and what such a run costs."""


class Costs:
    """Wall-clock seconds of runs. A configuration without a search trial is assumed to cost what the most similar one
    does."""

    def __init__(self, measured: Sequence[TrialRecord]) -> None:
        """`measured`: search trials with a measurement."""
        self._measured = measured
        self._nearest: dict[TrainConfig, TrialRecord | None] = {}
        recent = [record.result for record in sorted(measured, key=lambda record: record.number)[-_RECENT:]]
        again = [result for result in recent if result.runs_before]
        in_residents = 0 < len(recent) <= 2 * len(again)
        self._usual = again if in_residents else recent
        self._new = [record.result for record in measured if in_residents and not record.result.runs_before]
        """Runs in new processes, where most have run others before."""

    def run_s(self, config: TrainConfig, limit_s: float) -> float:
        """Seconds of one run that trains for `limit_s` after its first step: start-up, first step (compilation), the
        rest."""
        return self.start_s(config) + max(limit_s, FEWEST_STEPS * self.step_s(config))

    def start_s(self, config: TrainConfig) -> float:
        """Seconds of one run up to the end of its first step, in the kind of process that most runs have now."""
        return self.overhead_s + self._first_step_s(config)

    def fixed_s(self, configs: Sequence[TrainConfig]) -> float:
        """Seconds that a run costs on average in a round of these, however short it is. One of them pays for the
        round's process."""
        return self.new_process_s / len(configs) + statistics.fmean(self.run_s(config, 0.0) for config in configs)

    def rounds_s(self, configs: Sequence[TrainConfig], rounds: int, limit_s: float = SHORTEST_RUN_S) -> float:
        return rounds * SPARE * (self.new_process_s + sum(self.run_s(config, limit_s) for config in configs))

    def soak_s(self, config: TrainConfig, steps: int) -> float:
        start_s = self.new_process_s + self.start_s(config)
        return SPARE * (start_s + steps * self.busy_step_s(config)) if steps else 0.0

    def step_s(self, config: TrainConfig) -> float:
        """Seconds of one optimizer step in the long run, without disturbance."""
        record = self._most_similar(config)
        return config.effective_batch_size / samples_per_s(record) if record else 0.0

    def busy_step_s(self, config: TrainConfig) -> float:
        """Seconds of one optimizer step on this machine as it is, with its other work."""
        return self.step_s(config) * self.slowdown

    @cached_property
    def slowdown(self) -> float:
        """How much longer the timed steps of the search took than they would have without disturbance: 1 or more."""
        taken_s = math.fsum(block.seconds for record in self._measured for block in record.result.blocks)
        undisturbed_s = math.fsum(
            sum(block.samples for block in record.result.blocks) / samples_per_s(record) for record in self._measured
        )
        return max(taken_s / undisturbed_s, 1.0) if undisturbed_s > 0 else 1.0

    @cached_property
    def overhead_s(self) -> float:
        """Seconds that most runs now spend outside their training steps: fork, model, loader processes."""
        return _median([result.wall_s - result.training_s for result in self._usual])

    @cached_property
    def new_process_s(self) -> float:
        """How many seconds longer a run in a new process takes than most runs do now."""
        return max(_before_s(self._new) - _before_s(self._usual), 0.0) if self._new else 0.0

    def _most_similar(self, config: TrainConfig) -> TrialRecord | None:
        """The trial of the most similar configuration."""
        if config not in self._nearest:
            self._nearest[config] = min(
                self._measured, key=lambda record: len(record.result.config.differences(config)), default=None
            )
        return self._nearest[config]

    def _first_step_s(self, config: TrainConfig) -> float:
        """The first step of the most similar configuration, converted to the kind of process of most runs now."""
        record = self._most_similar(config)
        if record is None or record.result.warm_up is None:
            return 0.0
        first_s = record.result.warm_up.first_step_s
        if record.result.runs_before or cost_of(record.result) is None:
            return first_s
        return max(first_s - self._slow_first_s, record.result.warm_up.first_wait_s)

    @cached_property
    def _slow_first_s(self) -> float:
        """How many seconds longer a first step takes in a new process than in the processes of now."""
        return max(_slow_first_s(self._new) - _slow_first_s(self._usual), 0.0) if self._new else 0.0


def _before_s(results: Sequence[TrialResult]) -> float:
    return _median([cost.before_s for cost in map(cost_of, results) if cost])


def _slow_first_s(results: Sequence[TrialResult]) -> float:
    return _median([cost.before_s - (result.start_up_s or 0.0) for result in results if (cost := cost_of(result))])


def _median(seconds: Sequence[float]) -> float:
    return statistics.median(seconds) if seconds else 0.0
