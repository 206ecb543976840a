"""Which process a trial runs in: a new one, or the resident, which has run others before.

A new process costs its start and a slow first step: a device's context, its kernels, libraries that get ready. Where
that is much of what a trial takes and a process that lives on pays clearly less of it, it is worth keeping. On a plain
CPU, where a fork takes milliseconds, it is not. The runs so far tell which; the device's name does not matter.
"""

from __future__ import annotations

import signal
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from autotune.config import TrainConfig
from autotune.records import TrialRequest, TrialResult, TrialStatus

_SHARE = 0.15
"""What a living process has to save to be kept, as a share of the seconds that a run trains."""
_RECENT = 5
"""Runs of either kind that count."""
_BLAMED_ON_ITSELF = (TrialStatus.CRASHED, TrialStatus.FAILED, TrialStatus.OOM, TrialStatus.DIVERGED)


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """Seconds of one run."""

    before_s: float
    """Its start and what its first step took longer than others, without waiting for data."""
    trained_s: float
    """The steps after the first."""


def cost_of(result: TrialResult) -> RunCost | None:
    """None where it was not measured, or was compiled, which is paid in any process; nor of one side, which is
    short."""
    warm_up = result.warm_up
    if result.side or warm_up is None or result.start_up_s is None or result.config.compile != "none":
        return None
    computed = [(block.seconds - block.phases.get("data_wait", 0.0)) / block.steps for block in result.blocks]
    after_first_s = (warm_up.seconds - warm_up.first_step_s) / max(warm_up.steps - 1, 1)
    step_s = statistics.fmean(computed) if computed else after_first_s
    return RunCost(
        before_s=result.start_up_s + max(warm_up.first_step_s - warm_up.first_wait_s - step_s, 0.0),
        trained_s=result.training_s - warm_up.first_step_s,
    )


def is_worth_keeping(new: Sequence[RunCost], again: Sequence[RunCost]) -> bool:
    """Whether the process that has just run a trial is kept for the next one.

    `new`: of runs in new processes; `again`: of runs in processes that had run others. As long as there is none of the
    latter, it is tried where a new process costs enough for it to pay.
    """
    if not new:
        return False
    trained_s = statistics.median(cost.trained_s for cost in [*new, *again])
    saved_s = _usual_s(new) - (_usual_s(again) if again else 0.0)
    return saved_s > _SHARE * trained_s


def _usual_s(costs: Sequence[RunCost]) -> float:
    return statistics.median(cost.before_s for cost in costs)


def may_join(request: TrialRequest, earlier: Sequence[TrainConfig]) -> bool:
    """Whether `request` may run in the process in which `earlier` ran.

    What is read without loader processes may change the data set that the process holds: a cache, a generator of its
    own. A run whose losses are compared needs it as it was opened.
    """
    alone = request.config.world_size == 1
    unread = not request.watch_training or all(config.num_workers for config in earlier)
    return request.in_any_process and alone and unread


def is_asked_again(result: TrialResult, *, kernel_killed: bool = False) -> bool:
    """Whether it is run once more, in a new process: it failed where other runs may be to blame, or somebody killed one
    of its processes. `kernel_killed`: whether the kernel has, meanwhile, because memory had run out."""
    shared = result.runs_before > 0 and result.status in _BLAMED_ON_ITSELF
    return shared or (was_killed(result) and not kernel_killed)


def was_killed(result: TrialResult) -> bool:
    """Whether somebody killed one of its processes: the kernel, where memory had run out, or a person."""
    return result.failure is not None and result.failure.signal == signal.SIGKILL


@dataclass
class Residence:
    """What the runs so far have shown."""

    _are_shared: bool = False
    """Whether any might have joined another: who asks for a process of its own each time has no use for a resident."""
    _new: list[RunCost] = field(default_factory=list)
    _again: list[RunCost] = field(default_factory=list)

    def note(self, request: TrialRequest, result: TrialResult) -> None:
        self._are_shared = self._are_shared or request.in_any_process
        cost = cost_of(result)
        if cost is not None:
            (self._again if result.runs_before else self._new).append(cost)

    @property
    def is_worth_keeping(self) -> bool:
        return self._are_shared and is_worth_keeping(self._new[-_RECENT:], self._again[-_RECENT:])
