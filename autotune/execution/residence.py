"""Which process a trial runs in: a new one, or the resident, which has run others before.

A new process costs its start and a slow first step: the device's context, its kernels, libraries that initialise. A
process is worth keeping if this is a large part of a trial's time and a kept process clearly saves some of it. On a
plain CPU, where a fork takes milliseconds, it is not. The runs so far decide; the device's name does not matter.
"""

from __future__ import annotations

import signal
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from autotune.config import TrainConfig
from autotune.records import TrialRequest, TrialResult, TrialStatus

_SHARE = 0.15
"""What keeping a process must save, as a share of the seconds that a run trains."""
_RECENT = 5
"""How many of the latest runs of each kind count."""
_BLAMED_ON_ITSELF = (TrialStatus.CRASHED, TrialStatus.FAILED, TrialStatus.OOM, TrialStatus.DIVERGED)


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """Seconds of one run."""

    before_s: float
    """Its start, and by how much its first step was slower than the others, without waiting for data."""
    trained_s: float
    """The steps after the first."""


def cost_of(result: TrialResult) -> RunCost | None:
    """None if the run was not measured, was compiled (every process pays for that), or measured only one side, which is
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

    `new`: costs of runs in new processes; `again`: costs of runs in processes that had run others. While `again` is
    empty, it is tried if a new process costs enough for it to save time.
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

    Reading without loader processes may change the data set in the process, such as its cache or its random generator.
    A run whose losses are compared needs the data set as it was opened.
    """
    alone = request.config.world_size == 1
    unread = not request.watch_training or all(config.num_workers for config in earlier)
    return request.in_any_process and alone and unread


def is_asked_again(result: TrialResult, *, kernel_killed: bool = False) -> bool:
    """Whether the trial runs once more, in a new process: other runs of its process may have caused its failure, or one
    of its processes was killed from outside. `kernel_killed`: whether the kernel killed a process meanwhile because
    memory ran out."""
    shared = result.runs_before > 0 and result.status in _BLAMED_ON_ITSELF
    return shared or (was_killed(result) and not kernel_killed)


def was_killed(result: TrialResult) -> bool:
    """Whether one of its processes was killed from outside: by the kernel, when memory ran out, or by a person."""
    return result.failure is not None and result.failure.signal == signal.SIGKILL


@dataclass
class Residence:
    """What the runs so far have shown."""

    _are_shared: bool = False
    """Whether any run could have shared a process; if every request wants its own process, a resident is useless."""
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
