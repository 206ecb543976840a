"""Whether loading takes time from training, because both compute on the same cores."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotune.measure.loading import Loading
from autotune.measure.timed_block import TimedBlock

_MOSTLY = 0.5
"""If a fetch waits for at least this share of its time, loading does not compete for cores."""
_TICK_S = 0.01
"""Unit in which kernels count the CPU time of another process."""
_LONG_ENOUGH_S = 20 * _TICK_S
_BUSY_SHARE = 0.9
"""Share of the cores: if more are busy, each computation takes time from the others."""


def compete(blocks: Sequence[TimedBlock], loaded: Loading, workers: int) -> bool:
    """Whether loading (which mostly computes) and training (on the same cores) kept all cores busy in every one of
    `blocks`."""
    if not workers or not all(map(_were_busy, blocks)):
        return False
    return _waiting_share(loaded, workers, cores_of(blocks)) < _MOSTLY


def idle_share(blocks: Sequence[TimedBlock], loaded: Loading, workers: int) -> float:
    """Share of the cores that are idle while training waits for an epoch's first batches and the workers load."""
    cores = cores_of(blocks)
    waiting = _waiting_share(loaded, workers, cores)
    return waiting + (1 - waiting) * max(1 - workers / cores, 0.0)


def own_load(timed: TimedBlock) -> float:
    """Cores that the trial kept busy."""
    machine = timed.block.machine
    return (machine.own_load or 0.0) if machine else 0.0


def loader_loads(blocks: Sequence[TimedBlock]) -> list[float | None]:
    """Cores that the loader's processes kept busy, for each block; None if they were not counted.

    Blocks that are short compared with a tick are counted in groups, because a tick in one block also contains work of
    its neighbours.
    """
    found: list[float | None] = []
    group, group_s, left_s = list[TimedBlock](), 0.0, _seconds(blocks)
    for place, timed in enumerate(blocks):
        group.append(timed)
        group_s, left_s = group_s + timed.block.seconds, left_s - timed.block.seconds
        if place == len(blocks) - 1 or min(group_s, left_s) >= _LONG_ENOUGH_S:
            found += [_loader_load(group)] * len(group)
            group, group_s = [], 0.0
    return found


def counting_error(blocks: Sequence[TimedBlock]) -> float:
    """Standard deviation that counting in ticks adds to the share of the cores' time that loading took."""
    return _TICK_S / max(math.fsum(own_load(timed) * timed.block.seconds for timed in blocks), _TICK_S)


def _loader_load(blocks: Sequence[TimedBlock]) -> float | None:
    loads = [(timed.block.machine.loader_load if timed.block.machine else None) for timed in blocks]
    if any(load is None for load in loads):
        return None
    pairs = zip(blocks, loads, strict=True)
    return math.fsum((load or 0.0) * timed.block.seconds for timed, load in pairs) / _seconds(blocks)


def _seconds(blocks: Sequence[TimedBlock]) -> float:
    return math.fsum(timed.block.seconds for timed in blocks)


def cores_of(blocks: Sequence[TimedBlock]) -> int:
    machine = blocks[0].block.machine
    return (machine.cores if machine else None) or 1


def _waiting_share(loaded: Loading, workers: int, cores: int) -> float:
    """Share of a fetch in which it waits for something else than cores: the part beyond the time that its computing
    takes next to training and all other workers."""
    beside = 1 + workers / cores
    return max(1 - (loaded.cpu_s or 0.0) * beside / loaded.mean_s, 0.0)


def _were_busy(timed: TimedBlock) -> bool:
    machine = timed.block.machine
    if machine is None or machine.cores is None or not machine.own_load:
        return False
    return machine.own_load + (machine.outside_load or 0.0) > _BUSY_SHARE * machine.cores
