"""What runs will cost, judged by the trials so far: for planning the confirmation inside the budget."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import cached_property

from autotune.config import TrainConfig
from autotune.records import TrialRecord
from autotune.search.figures import samples_per_s
from autotune.search.ledger import Ledger
from autotune.search.stability import Stability

SHORTEST_RUN_S = 0.8
"""Training seconds of a confirming run: less would leave nothing after the warm-up."""
SPARE = 1.15
"""A run may take this much longer than it did before."""
_FEWEST_STEPS = 4
"""Optimizer steps of any run after its first: two of warm-up, two timed."""


class Costs:
    """Seconds of wall-clock; a configuration without a search trial is taken to cost what the most similar one does."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known_at = -1
        self._known = _Known([])

    def run_s(self, config: TrainConfig, limit_s: float) -> float:
        """One run that may train for `limit_s` after its first step: start-up, first step (compilation), the rest."""
        return self.start_s(config) + max(limit_s, _FEWEST_STEPS * self.step_s(config))

    def start_s(self, config: TrainConfig) -> float:
        """Seconds of one run up to the end of its first step."""
        record = self._now().nearest(config)
        warm_up = record.result.warm_up if record else None
        return self.overhead_s() + (warm_up.first_step_s if warm_up else 0.0)

    def rounds_s(self, configs: Sequence[TrainConfig], rounds: int, limit_s: float = SHORTEST_RUN_S) -> float:
        return rounds * SPARE * sum(self.run_s(config, limit_s) for config in configs)

    def soak_s(self, config: TrainConfig, steps: int) -> float:
        return SPARE * (self.start_s(config) + steps * self.busy_step_s(config)) if steps else 0.0

    def tests_s(self, config: TrainConfig, baseline: TrainConfig, stability: Stability) -> float:
        """The stability tests of `config`. Plain arithmetic is taken to be as fast as the baseline."""
        plain_step_s = self.busy_step_s(baseline) * config.effective_batch_size / baseline.effective_batch_size
        return SPARE * stability.cost_s(config, self.busy_step_s(config), plain_step_s, self.start_s(config))

    def step_s(self, config: TrainConfig) -> float:
        """One optimizer step in the long run, while nothing disturbs it."""
        record = self._now().nearest(config)
        return config.effective_batch_size / samples_per_s(record) if record else 0.0

    def busy_step_s(self, config: TrainConfig) -> float:
        """One optimizer step on this machine as it is, other work on it included."""
        return self.step_s(config) * self.slowdown()

    def slowdown(self) -> float:
        """How much longer the timed steps of the search took than they would have undisturbed: 1 or more."""
        return self._now().slowdown

    def overhead_s(self) -> float:
        """Seconds of one run outside its training steps: the fork, the model, the loader's processes."""
        return self._now().overhead_s

    def _now(self) -> _Known:
        """Read anew when the ledger has grown: costs are asked for hundreds of times between two trials."""
        if self._known_at != len(self._ledger.records):
            self._known, self._known_at = _Known(self._ledger.measured()), len(self._ledger.records)
        return self._known


class _Known:
    """What the search's trials so far tell."""

    def __init__(self, measured: Sequence[TrialRecord]) -> None:
        self._measured = measured
        self._nearest: dict[TrainConfig, TrialRecord | None] = {}

    def nearest(self, config: TrainConfig) -> TrialRecord | None:
        """The trial of the most similar configuration."""
        if config not in self._nearest:
            self._nearest[config] = min(
                self._measured, key=lambda record: len(record.result.config.differences(config)), default=None
            )
        return self._nearest[config]

    @cached_property
    def slowdown(self) -> float:
        taken_s = math.fsum(block.seconds for record in self._measured for block in record.result.blocks)
        undisturbed_s = math.fsum(
            sum(block.samples for block in record.result.blocks) / samples_per_s(record) for record in self._measured
        )
        return max(taken_s / undisturbed_s, 1.0) if undisturbed_s > 0 else 1.0

    @cached_property
    def overhead_s(self) -> float:
        seen = [record.result.wall_s - record.result.training_s for record in self._measured]
        return statistics.median(seen) if seen else 0.0
