"""Makes a `TrialResult` from what a trial's process reported and how it ended."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from autotune.records import (
    Block,
    Failure,
    FirstGradient,
    LargestActivation,
    Memory,
    OptimizerSteps,
    Rank,
    Rates,
    SideRate,
    TrialEvent,
    TrialRequest,
    TrialResult,
    TrialStatus,
    WarmUp,
)


@dataclass(kw_only=True)
class Outcome:
    """Everything that one request produced, and how its process ended, if it has ended."""

    asked_at_s: float
    process: str | None = None
    runs_before: int = 0
    """Runs of the same process before this one."""
    ended_at_s: float = 0.0
    events: list[TrialEvent] = field(default_factory=list)
    exit_code: int | None = None
    """As in `subprocess`: negative for a signal; None when it is unknown."""
    deadline_s: float | None = None
    """Set when the process was killed for its deadline."""
    output_tail: str = ""

    @property
    def was_killed(self) -> bool:
        """Whether something other than autotune killed it: the kernel, or a person."""
        return self.exit_code == -signal.SIGKILL and self.deadline_s is None

    def of_kind(self, name: str) -> list[TrialEvent]:
        return [event for event in self.events if event.event == name]

    def result(self, request: TrialRequest) -> TrialResult:
        warm, blocks = self.of_kind("warm"), self.of_kind("block")
        started, ends = self.of_kind("started"), self.of_kind("result")
        last = ends[-1].payload if ends else {}
        status, failure = self._verdict(last)
        gradient, activation = last.get("first_gradient"), last.get("largest_activation")
        parts = [OptimizerSteps.model_validate(event.payload["steps"]) for event in (*warm, *blocks)]
        timed = tuple(Block.model_validate(event.payload["block"]) for event in blocks)
        return TrialResult(
            config=request.config,
            status=status,
            seed=request.seed,
            warm_up=WarmUp.model_validate(warm[0].payload["warm_up"]) if warm else None,
            blocks=timed,
            rates=Rates.model_validate(last["rates"]) if last.get("rates") else None,
            side=request.side,
            side_rate=SideRate.model_validate(last["side_rate"]) if last.get("side_rate") else None,
            steps=_joined(parts) if parts else None,
            first_gradient=FirstGradient.model_validate(gradient) if gradient else None,
            largest_activation=LargestActivation.model_validate(activation) if activation else None,
            memory=_memory(last["memory"], timed) if last.get("memory") else None,
            start_up_s=started[0].at_s - self.asked_at_s if started else None,
            wall_s=self.ended_at_s - self.asked_at_s,
            process=self.process,
            runs_before=self.runs_before,
            failure=failure,
            mean_of_means=bool(last.get("mean_of_means")),
            unreadable_samples=tuple(last.get("unreadable_samples", ())),
            ranks=tuple(Rank.model_validate(rank) for rank in last.get("ranks", ())),
            output_tail=self.output_tail,
        )

    def _verdict(self, last: dict[str, Any]) -> tuple[TrialStatus, Failure | None]:
        if last:
            failure = last["failure"]
            return TrialStatus(last["status"]), Failure.model_validate(failure) if failure else None
        return self.sudden_end()

    def sudden_end(self) -> tuple[TrialStatus, Failure]:
        """Status and reason of a process that ended without a result."""
        if self.deadline_s is not None:
            return TrialStatus.TIMEOUT, Failure(
                reason=f"not done after {self.deadline_s:.0f} s; its process was killed"
            )
        code = self.exit_code
        if code is None:
            return TrialStatus.CRASHED, Failure(reason="the process that starts trials died too")
        if self.was_killed:
            reason = "killed by signal 9, as the kernel's out-of-memory killer does"
            return TrialStatus.OOM, Failure(reason=reason, signal=signal.SIGKILL)
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else "real-time"
            reason = f"killed by signal {-code} ({name})"
            return TrialStatus.CRASHED, Failure(reason=reason, traceback=self.output_tail, signal=-code)
        return TrialStatus.CRASHED, Failure(
            reason=f"exited with code {code} before it returned a result", exit_code=code
        )


def _memory(seen: dict[str, Any], blocks: Sequence[Block]) -> Memory:
    """Peak memory as the trial's process reported it, and the most that its loader processes held."""
    held = [block.machine.loader_bytes or 0 for block in blocks if block.machine]
    return Memory.model_validate({**seen, "loader_bytes": max(held, default=0) or None})


def _joined(parts: list[OptimizerSteps]) -> OptimizerSteps:
    return OptimizerSteps(
        losses=[loss for part in parts for loss in part.losses],
        samples=[count for part in parts for count in part.samples],
        skipped=[skip for part in parts for skip in part.skipped],
        loss_scales=[scale for part in parts for scale in part.loss_scales],
        gradient_norms=[norm for part in parts for norm in part.gradient_norms],
    )
