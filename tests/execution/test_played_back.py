"""Trials played back from a table: costs, noise, failures, and the same early end as a real trial's."""

from __future__ import annotations

import pytest
from support import worlds

from autotune.config import TrainConfig
from autotune.errors import EnvironmentFailure
from autotune.execution.replay import ReplayBackend
from autotune.records import Table, TrialRequest, TrialResult, TrialStatus
from autotune.stats import throughput

TABLE: Table = worlds.cpu_table()
FITTING = next(config for config, runs in TABLE.by_config().items() if runs[0].status is TrialStatus.OK)
FAILING = next(config for config, runs in TABLE.by_config().items() if runs[0].status is TrialStatus.OOM)


class Playback:
    def __init__(self, seed: int = 0) -> None:
        self.spent_s = 0.0
        self.backend = ReplayBackend(TABLE, self._advance, seed)

    def _advance(self, seconds: float) -> None:
        self.spent_s += seconds

    def run(self, config: TrainConfig, *, floor: float | None = None, deadline_s: float = 1e9) -> TrialResult:
        request = TrialRequest(config=config, seed=0, time_limit_s=1.5, hopeless_below=floor)
        return self.backend.run(request, deadline_s=deadline_s)


def test_it_costs_what_was_recorded_and_draws_its_blocks_from_one_process() -> None:
    playback = Playback()
    result = playback.run(FITTING)
    assert playback.spent_s == result.wall_s
    recorded = [{row.seconds for row in run.blocks} for run in TABLE.by_config()[FITTING]]
    drawn = {block.seconds for block in result.blocks}
    assert any(drawn <= seconds for seconds in recorded)
    assert result.wall_s == pytest.approx(TABLE.by_config()[FITTING][0].wall_s, rel=0.5)


def test_noise_differs_between_runs_and_repeats_with_the_seed() -> None:
    one, again = Playback(seed=3), Playback(seed=3)
    first, second = one.run(FITTING), one.run(FITTING)
    assert throughput(first.blocks) != throughput(second.blocks)
    assert throughput(again.run(FITTING).blocks) == throughput(first.blocks)


def test_a_failure_costs_its_time_and_says_its_reason() -> None:
    playback = Playback()
    result = playback.run(FAILING)
    assert result.status is TrialStatus.OOM
    assert result.failure is not None
    assert playback.spent_s > 0


def test_a_hopeless_trial_ends_early_and_costs_less() -> None:
    whole, stopped = Playback(), Playback()
    full = whole.run(FITTING)
    result = stopped.run(FITTING, floor=100 * throughput(full.blocks))
    assert result.status is TrialStatus.PRUNED
    assert 3 <= len(result.blocks) < len(full.blocks)
    assert stopped.spent_s < whole.spent_s


def test_a_deadline_is_kept() -> None:
    playback = Playback()
    assert playback.run(FITTING, deadline_s=0.2).status is TrialStatus.TIMEOUT
    assert playback.spent_s == 0.2


def test_what_the_table_lacks_is_no_result() -> None:
    with pytest.raises(EnvironmentFailure, match="holds no run of"):
        Playback().run(TrainConfig(micro_batch_size=3))
