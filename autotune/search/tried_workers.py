"""What the trials of a study have shown of other numbers of workers than a configuration has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autotune.config import TrainConfig
from autotune.records import TrialRecord, TrialResult
from autotune.search.bottleneck import TriedWorkers
from autotune.search.figures import is_ok, samples_per_s

_OF_LOADING = ("num_workers", "prefetch_factor", "pin_memory")


def tried_workers(config: TrainConfig, per_s: float, records: Sequence[TrialRecord]) -> TriedWorkers:
    """`per_s`: the throughput of `config`, in samples per second."""
    walls = [each for record in records for each in _walls(record.result, config)]
    same = [wall_s for micro, wall_s in walls if micro == config.micro_batch_size]
    speeds: dict[int, float] = {}
    for record in records:
        other = record.result.config
        if is_ok(record) and other.num_workers != config.num_workers and _trains_as(other, config):
            speeds[other.num_workers] = max(samples_per_s(record) / per_s, speeds.get(other.num_workers, 0.0))
    return TriedWorkers(wall_s=min(same or [wall_s for _, wall_s in walls], default=None), speeds=speeds)


def _walls(result: TrialResult, config: TrainConfig) -> Iterator[tuple[int, float]]:
    """The micro-batch of a run with workers on the same data, and the seconds that each took for a sample."""
    ran, rates = result.config, result.rates
    if ran.num_workers and rates is not None and rates.supply_per_s and ran.custom == config.custom:
        yield ran.micro_batch_size, ran.num_workers * ran.world_size / rates.supply_per_s


def _trains_as(other: TrainConfig, config: TrainConfig) -> bool:
    return set(other.differences(config)) <= set(_OF_LOADING)
