"""Trials played back from a table: costs, noise, failures, and the same early end as a real trial's."""

from __future__ import annotations

import pytest
from support import worlds

from autotune.config import TrainConfig
from autotune.errors import EnvironmentFailure
from autotune.execution.replay import ReplayBackend
from autotune.records import Failure, Table, TrialRequest, TrialResult, TrialStatus
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


def test_it_costs_the_start_of_one_recorded_process_and_the_blocks_drawn_from_it() -> None:
    playback, starts = Playback(), set()
    for _ in range(20):
        spent_s = playback.spent_s
        result = playback.run(FITTING)
        drawn = {block.seconds for block in result.blocks}
        (recorded,) = (run for run in TABLE.by_config()[FITTING] if drawn <= {row.seconds for row in run.blocks})
        assert len(result.blocks) == len(recorded.blocks)
        start_s = recorded.wall_s - sum(row.seconds for row in recorded.blocks)
        assert result.wall_s == pytest.approx(start_s + sum(block.seconds for block in result.blocks))
        assert playback.spent_s == pytest.approx(spent_s + result.wall_s)
        starts.add(start_s)
    assert len(starts) == TABLE.repeats, "each of the recorded processes has its turn"


def test_noise_differs_between_runs_and_repeats_with_the_seed() -> None:
    one, again = Playback(seed=3), Playback(seed=3)
    first, second = one.run(FITTING), one.run(FITTING)
    assert throughput(first.blocks) != throughput(second.blocks)
    assert throughput(again.run(FITTING).blocks) == throughput(first.blocks)


def test_a_failure_costs_its_time_and_says_its_reason() -> None:
    playback = Playback()
    result = playback.run(FAILING)
    assert (result.status, result.blocks) == (TrialStatus.OOM, ())
    assert result.failure == Failure(reason="simulated: out of memory")
    assert {run.wall_s for run in TABLE.by_config()[FAILING]} == {1.0}
    assert result.wall_s == playback.spent_s == 1.0


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
