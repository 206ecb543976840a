"""Measures the loader's side alone: takes batches as soon as they are loaded, and trains nothing."""

from __future__ import annotations

from typing import Protocol

from autotune.measure.loader_log import LoaderLog
from autotune.measure.loading import Loading, loading
from autotune.measure.protocols import Judge, Loader, Machine
from autotune.measure.slow_batches import have_been_timed, slow_batches_of
from autotune.records import SideRate, TrialRequest

_STRETCH_SHARE, _LONGEST_STRETCH_S = 0.1, 0.5
"""How long the machine is observed at a time: a share of the time limit, and seconds."""
_FEWEST_ROUNDS = 2
"""Batches of each loader process that are enough for a good mean if they differ little."""
_GIVEN_BACK = 1.0
"""Share of the time limit that is added if other work disturbs the measurement: what was drained meanwhile does not
count."""


class Drained(Protocol):
    """A `Loop` that only takes batches."""

    def clock(self) -> float: ...

    def discard(self, batches: int) -> None: ...


def drain(loop: Drained, loader: Loader, request: TrialRequest, *, machine: Machine, judge: Judge) -> SideRate | None:
    """Drain until the loader's rate is known as precisely as `request` asks, or until the time limit. The time counts
    from the first batch of each loader process, so their start is excluded. None if nothing was loaded.

    The rate follows from the same log as in training (`loading`).
    """
    log = loader.read()
    loop.discard(max(log.workers, 1))
    machine.find_workers()
    first_s = began_s = loop.clock()
    stretch_s = min(_STRETCH_SHARE * request.time_limit_s, _LONGEST_STRETCH_S)
    while True:
        from_s = loop.clock()
        machine.start()
        while loop.clock() - from_s < stretch_s:
            loop.discard(1)
        now_s = loop.clock()
        disturbed = bool(judge(machine.read(), now_s - from_s))
        may_wait = now_s - first_s < (1 + _GIVEN_BACK) * request.time_limit_s
        if disturbed and may_wait:
            began_s = now_s
            continue
        began_s = began_s if may_wait else first_s  # the disturbance is there to stay
        loaded = loading(loader.read(), began_s)
        if _is_enough(log, loaded, began_s, request) or _is_over(log, began_s, now_s, request):
            break
    if loaded is None or loaded.pace_s <= 0:
        return None
    return SideRate(
        per_s=request.config.micro_batch_size / loaded.pace_s,
        error=min(loaded.relative_error, 1.0),
        seconds=loop.clock() - began_s,
        fetch_s=loaded.mean_s,
        fetch_cpu_s=loaded.cpu_s,
        slow_batches=slow_batches_of(log, began_s),
    )


def _is_enough(log: LoaderLog, loaded: Loading | None, began_s: float, request: TrialRequest) -> bool:
    known = loaded is not None and loaded.relative_error < request.target_relative_error
    return known and have_been_timed(log, began_s) and _rounds(log, began_s) >= _FEWEST_ROUNDS


def _is_over(log: LoaderLog, began_s: float, now_s: float, request: TrialRequest) -> bool:
    return now_s - began_s >= request.time_limit_s and _rounds(log, began_s) >= 1


def _rounds(log: LoaderLog, began_s: float) -> float:
    """Batches of each loader process since `began_s`."""
    if not log.workers:
        return float(sum(take.asked_s >= began_s for take in log.takes))
    return sum(1 for _ in log.since(began_s)) / log.workers
