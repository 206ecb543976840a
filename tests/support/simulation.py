"""A machine in numbers: a clock that only moves when a trial runs, and trials whose speed is a formula.

The search asks a backend for runs and a clock for the time; with these two it searches for hours in milliseconds.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from autotune.config import TrainConfig
from autotune.execution import OnEvent
from autotune.records import (
    Block,
    Facts,
    Failure,
    Memory,
    OptimizerSteps,
    StepPhase,
    TrialEvent,
    TrialRequest,
    TrialResult,
    TrialStatus,
    WarmUp,
)

Behaviour = Callable[[TrainConfig], float | TrialStatus]
"""Samples per second of a configuration, or how it fails."""
Training = Callable[[TrialRequest, TrialResult], TrialResult]
"""What a run says in the end, given what it would have said of a training that goes well."""

START_UP_S = 0.6
_BLOCKS = 6
_WARM_UP_STEPS = 3


def _phases(seconds: float) -> dict[StepPhase, float]:
    shares: dict[StepPhase, float] = {"data_wait": 0.02, "copy": 0.03, "forward_backward": 0.85, "optimizer": 0.1}
    return {phase: share * seconds for phase, share in shares.items()}


def _up_to(blocks: list[int], max_steps: int | None) -> list[int]:
    """Steps of each block, of which the last ends with the step that the request ends with."""
    if max_steps is None:
        return blocks
    ends = [min(end, max(max_steps - _WARM_UP_STEPS, 1)) for end in itertools.accumulate(blocks)]
    return [end - before for before, end in itertools.pairwise([0, *ends]) if end > before]


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


def good_sense(config: TrainConfig) -> float:
    """A machine on which everything that should help does: 100 samples/s for the baseline, about 400 for the best."""
    speed = 100.0 * (config.micro_batch_size / 32) ** 0.25
    speed *= 1.6 if config.amp_dtype == "bf16" else 1.0
    speed *= 1.3 if config.memory_format == "channels_last" and config.amp_dtype == "bf16" else 1.0
    return speed * (1.2 if config.num_workers else 1.0)


class SimulatedBackend:
    """Runs trials on a `Clock`. Noise is drawn for each process, as on a real machine, and a little for each block."""

    slots = 1
    remarks: Sequence[str] = ()

    def __init__(
        self,
        clock: Clock,
        facts: Facts,
        behaviour: Behaviour = good_sense,
        *,
        noise: float = 0.02,
        seed: int = 0,
        loss: Callable[[TrainConfig, int], float] = lambda _config, samples: 2.3 / (1 + samples / 1000),
        training: Training = lambda _request, result: result,
    ) -> None:
        self._clock = clock
        self._facts = facts
        self._behaviour = behaviour
        self._noise = noise
        self._random = random.Random(seed)
        self._loss = loss
        self._training = training
        self.requests: list[TrialRequest] = []
        self.closed = False
        self.interrupt_at: int | None = None

    def __call__(self, _spec: dict[str, Any], _folder: Path) -> SimulatedBackend:
        return self

    def facts(self, deadline_s: float) -> Facts:
        self._clock.advance(6.0)
        return self._facts

    def run(self, request: TrialRequest, *, deadline_s: float, on_event: OnEvent) -> TrialResult:
        self.requests.append(request)
        if self.interrupt_at == len(self.requests):
            self._clock.advance(1.0)
            raise KeyboardInterrupt
        speed = self._behaviour(request.config)
        if isinstance(speed, TrialStatus):
            return self._failure(request, speed, deadline_s)
        return self._success(request, speed * self._random.lognormvariate(0, self._noise), deadline_s, on_event)

    def close(self) -> None:
        self.closed = True

    def _failure(self, request: TrialRequest, status: TrialStatus, deadline_s: float) -> TrialResult:
        wall_s = deadline_s if status is TrialStatus.TIMEOUT else START_UP_S
        self._clock.advance(wall_s)
        return TrialResult(
            config=request.config,
            status=status,
            seed=request.seed,
            wall_s=wall_s,
            failure=Failure(reason=f"simulated {status}"),
        )

    def _success(self, request: TrialRequest, speed: float, deadline_s: float, on_event: OnEvent) -> TrialResult:
        config = request.config
        step_s = config.effective_batch_size / speed
        warm_up = WarmUp(steps=_WARM_UP_STEPS, seconds=_WARM_UP_STEPS * step_s, first_step_s=step_s, settled=True)
        timed_s = max(request.time_limit_s - 2 * step_s, request.min_steps * step_s, 2 * step_s)
        block_steps = max(1, round(timed_s / _BLOCKS / step_s))
        blocks = []
        for steps in _up_to([block_steps] * min(_BLOCKS, round(timed_s / step_s)), request.max_steps):
            seconds = steps * step_s * self._random.lognormvariate(0, self._noise / 4)
            samples = steps * config.effective_batch_size
            blocks.append(Block(steps=steps, samples=samples, seconds=seconds, phases=_phases(seconds)))
            payload = {"block": blocks[-1].model_dump()}
            on_event(TrialEvent(event="block", at_s=self._clock(), payload=payload))
        steps = _WARM_UP_STEPS + sum(block.steps for block in blocks)
        wall_s = START_UP_S + warm_up.seconds + sum(block.seconds for block in blocks)
        if wall_s > deadline_s:
            return self._failure(request, TrialStatus.TIMEOUT, deadline_s)
        self._clock.advance(wall_s)
        result = TrialResult(
            config=config,
            status=TrialStatus.OK,
            seed=request.seed,
            blocks=tuple(blocks),
            warm_up=warm_up,
            steps=OptimizerSteps(
                losses=[self._loss(config, (step + 1) * config.effective_batch_size) for step in range(steps)],
                samples=[config.effective_batch_size] * steps,
                skipped=[False] * steps,
            ),
            memory=Memory(resident_bytes=1 << 30, resident_growth_bytes=config.micro_batch_size << 20),
            start_up_s=START_UP_S,
            wall_s=wall_s,
        )
        return self._training(request, result)
