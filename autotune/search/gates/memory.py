"""Gates on memory: what must stay free, and what must not grow."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence

from autotune.records import Block, Check, Facts, MachineState, TrialResult
from autotune.stats import student_t

LONG_TRAINING_STEPS = 100_000
_STRETCHES = 5
_STEADY = 0.98
"""Two-sided: of a hundred random walks one passes for a leak."""
_FEWEST_BLOCKS = 8
_SETTLING_SHARE = 1 / 3
"""First part of a run, in which caches and pools still fill."""
_RISING_PAIRS = 0.9
"""Share of all pairs of blocks of which the later holds more: noise gives a half, a leak nearly all."""


def memory_headroom(runs: Sequence[TrialResult], facts: Facts, limit: float) -> Check:
    """Share of the device's memory (of the host's, on a CPU) that stayed free at the peak; may not be below the limit.

    On an accelerator this counts what torch's allocator reserved, which is what the next process finds missing.
    """
    seen = [run.memory for run in runs if run.memory]
    on_device = [memory.reserved_bytes for memory in seen if memory.reserved_bytes is not None]
    total = facts.device.total_memory_bytes if on_device else facts.host.memory_bytes
    used = max(on_device or [memory.resident_bytes for memory in seen], default=total)
    free = 1 - used / total
    return Check(name="memory_headroom", passed=free >= limit, value=free, limit=limit)


def host_memory_headroom(runs: Sequence[TrialResult], facts: Facts, limit: float) -> Check:
    """Share of the host's memory that could still be had in the worst block, with all that runs there."""
    available = [state.available_memory_bytes for state in _states(runs)]
    return _headroom("host_memory_headroom", available, facts.host.memory_bytes, limit)


def shm_headroom(runs: Sequence[TrialResult], facts: Facts, limit: float) -> Check:
    """Share of /dev/shm that stayed free: loader processes hand their batches over through it."""
    free = [state.shm_free_bytes for state in _states(runs) if state.shm_free_bytes is not None]
    return _headroom("shm_headroom", free, facts.host.shm_bytes or 1, limit)


def allocator_retries(runs: Sequence[TrialResult]) -> Check:
    """How often, after the warm-up, cudaMalloc failed and torch gave its cached blocks back to try again.

    Each one stalls the device, and says that the memory is all but full. MosaicML's Composer calls two batches with
    retries in a row thrashing; a run as short as ours should have none.
    """
    counts = [[count for count in map(_retries, run.blocks) if count is not None] for run in runs]
    retries = sum(count[-1] - count[0] for count in counts if count)
    seen = any(len(count) > 1 for count in counts)
    detail = "" if seen else "not measured"
    return Check(name="allocator_retries", passed=retries == 0, value=retries, limit=0, detail=detail, conclusive=seen)


def memory_growth(run: TrialResult, facts: Facts, headroom: float) -> Check:
    """Bytes that memory, the loader's included, grew by with each optimizer step, where it grew steadily; else 0.

    The limit is what would use up the free memory within 100,000 steps. The growth is the median slope over all pairs
    of blocks (Theil, "A Rank-Invariant Method of Linear and Polynomial Regression Analysis", 1950; Sen, "Estimates of
    the Regression Coefficient Based on Kendall's Tau", 1968) after the first third of the run, and steady when 90 % of
    the pairs rise, and each fifth of it about alike. A data set that keeps in memory what it has read looks the same
    until its first epoch is over.
    """
    blocks = run.blocks[int(len(run.blocks) * _SETTLING_SHARE) :]
    if len(blocks) < _FEWEST_BLOCKS:
        detail = f"{len(blocks)} blocks are too few to see a trend"
        return Check(name="memory_growth", passed=True, value=0.0, limit=0.0, detail=detail, conclusive=False)
    state = blocks[-1].machine
    if state is None:
        return Check(name="memory_growth", passed=True, value=0.0, limit=0.0, detail="not measured", conclusive=False)
    grown = {"host memory": _growth(blocks, lambda state: state.resident_bytes + (state.loader_bytes or 0))}
    limits = {"host memory": _free_on_host(state, facts, headroom) / LONG_TRAINING_STEPS}
    if state.device_allocated_bytes is not None:
        grown["device memory"] = _growth(blocks, lambda state: state.device_allocated_bytes)
        limits["device memory"] = _free_on_device(run, facts, headroom) / LONG_TRAINING_STEPS
    worst = max(grown, key=lambda place: grown[place] / max(limits[place], 1.0))
    detail = f"{worst}: {grown[worst] / 2**20:.3g} MiB a step" if grown[worst] else ""
    passed = grown[worst] <= max(limits[worst], 0.0)
    return Check(name="memory_growth", passed=passed, value=grown[worst], limit=max(limits[worst], 0.0), detail=detail)


def _states(runs: Sequence[TrialResult]) -> list[MachineState]:
    return [block.machine for run in runs for block in run.blocks if block.machine is not None]


def _retries(block: Block) -> int | None:
    return block.machine.allocator_retries if block.machine else None


def _headroom(name: str, free_bytes: Sequence[int], total_bytes: int, limit: float) -> Check:
    if not free_bytes:
        return Check(name=name, passed=True, value=1.0, limit=limit, detail="not measured", conclusive=False)
    free = min(free_bytes) / total_bytes
    return Check(name=name, passed=free >= limit, value=free, limit=limit)


def _growth(blocks: Sequence[Block], read: Callable[[MachineState], int | None]) -> float:
    """Bytes a step; 0 unless it rises steadily."""
    points, step = [], 0
    for block in blocks:
        step += block.steps
        used = read(block.machine) if block.machine else None
        if used is not None:
            points.append((step, used))
    pairs = list(itertools.combinations(points, 2))
    rising = sum(later > earlier for (_, earlier), (_, later) in pairs)
    if not pairs or rising < _RISING_PAIRS * len(pairs) or not _in_every_stretch([used for _, used in points]):
        return 0.0
    return max(statistics.median((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in pairs), 0.0)


def _in_every_stretch(used: Sequence[int]) -> bool:
    """Whether five stretches rise alike, by Student's t: a random walk strays as far, but not by the same each time."""
    edges = [round(number * (len(used) - 1) / _STRETCHES) for number in range(_STRETCHES + 1)]
    rises = [used[later] - used[earlier] for earlier, later in itertools.pairwise(edges)]
    error = statistics.stdev(rises) / math.sqrt(_STRETCHES)
    return statistics.fmean(rises) > student_t(_STRETCHES - 1, _STEADY) * error


def _free_on_device(run: TrialResult, facts: Facts, headroom: float) -> float:
    reserved = run.memory.reserved_bytes or 0 if run.memory else 0
    return (1 - headroom) * facts.device.total_memory_bytes - reserved


def _free_on_host(state: MachineState, facts: Facts, headroom: float) -> float:
    return state.available_memory_bytes - headroom * facts.host.memory_bytes
