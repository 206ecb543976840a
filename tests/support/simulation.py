"""A machine in numbers: a clock that only moves when a trial runs, and trials whose speed is a formula.

The search asks a backend for runs and a clock for the time; with these two it searches for hours in milliseconds.
Trials are as imperfect as real ones: a warm-up may end before steps have settled, other work slows some blocks down,
batches differ, and low precision rounds.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from autotune.config import TrainConfig
from autotune.execution import OnEvent
from autotune.execution.simulated.training import BATCHES, ROUNDING, findings, loss_of
from autotune.records import (
    Block,
    Facts,
    Failure,
    MachineState,
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
_BLOCKS_OF_A_SOAK = 30
_WARM_UP_STEPS = 3
_WARM_UP_SHARE = 0.6
"""Of the time limit, from the end of the first step: a warm-up that takes longer is cut off, and has not settled."""
_BUSY, _BUSY_SLOWS = 0.04, 1.3
"""Share of the blocks that other work slows down, and by how much."""


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


class FormulaBackend:
    """Runs trials on a `Clock`, as fast as a formula says of each configuration.

    Noise is drawn for each process, as on a real machine, and a little for each block.
    """

    slots = 1
    remarks: Sequence[str] = ()

    def __init__(
        self,
        clock: Clock,
        facts: Facts,
        behaviour: Behaviour = good_sense,
        *,
        noise: float = 0.02,
        busy: float = _BUSY,
        seed: int = 0,
        loss: Callable[[TrainConfig, int], float] = loss_of,
        training: Training = lambda _request, result: result,
    ) -> None:
        """`noise`: standard deviation of the logarithm of a process's speed; `busy`: share of the blocks that other
        work slows down."""
        self._clock = clock
        self._facts = facts
        self._behaviour = behaviour
        self._noise = noise
        self._busy = busy
        self._random = random.Random(seed)
        self._loss = loss
        self._training = training
        self.requests: list[TrialRequest] = []
        self.closed = False
        self.interrupt_at: int | None = None

    def __call__(self, _spec: dict[str, Any], _folder: Path) -> FormulaBackend:
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
        blocks = self._blocks(request, step_s)
        warm_up = self._warm_up(request, step_s)
        wall_s = START_UP_S + warm_up.seconds + sum(block.seconds for block in blocks)
        if wall_s > deadline_s:
            return self._failure(request, TrialStatus.TIMEOUT, deadline_s)
        for block in blocks:
            on_event(TrialEvent(event="block", at_s=self._clock(), payload={"block": block.model_dump()}))
        self._clock.advance(wall_s)
        result = TrialResult(
            config=config,
            status=TrialStatus.OK,
            seed=request.seed,
            blocks=tuple(blocks),
            warm_up=warm_up,
            steps=self._steps(request, warm_up.steps + sum(block.steps for block in blocks)),
            memory=self._memory(config),
            start_up_s=START_UP_S,
            wall_s=wall_s,
            **findings(request),
        )
        return self._training(request, result)

    def _warm_up(self, request: TrialRequest, step_s: float) -> WarmUp:
        seconds = _WARM_UP_STEPS * step_s
        cut_off = request.max_steps is None and step_s > _WARM_UP_SHARE * request.time_limit_s
        return WarmUp(steps=_WARM_UP_STEPS, seconds=seconds, first_step_s=step_s, settled=not cut_off)

    def _blocks(self, request: TrialRequest, step_s: float) -> list[Block]:
        timed_s = max(request.time_limit_s - 2 * step_s, request.min_steps * step_s, 2 * step_s)
        most = _BLOCKS_OF_A_SOAK if request.min_steps else _BLOCKS
        steps = max(1, round(timed_s / most / step_s))
        return [
            self._block(request.config, steps, step_s)
            for steps in _up_to([steps] * min(most, round(timed_s / step_s)), request.max_steps)
        ]

    def _block(self, config: TrainConfig, steps: int, step_s: float) -> Block:
        busy = self._random.random() < self._busy
        seconds = steps * step_s * self._random.lognormvariate(0, self._noise / 4) * (_BUSY_SLOWS if busy else 1.0)
        return Block(
            steps=steps,
            samples=steps * config.effective_batch_size,
            seconds=seconds,
            phases=_phases(seconds),
            machine=self._machine(config, busy=busy),
            disturbances=("contended",) if busy else (),
        )

    def _machine(self, config: TrainConfig, *, busy: bool) -> MachineState:
        host, device = self._facts.host, self._facts.device
        on_device = device.kind == "cuda"
        resident = (1 << 30) + self._random.randrange(1 << 22)  # pools grow and shrink
        return MachineState(
            outside_load=1.0 if busy else abs(self._random.gauss(0, 0.02)),
            own_load=float(host.usable_cores) - busy,
            available_memory_bytes=host.memory_bytes - resident - self._random.randrange(1 << 26),
            shm_free_bytes=host.shm_bytes,
            resident_bytes=resident,
            device_allocated_bytes=config.micro_batch_size << 22 if on_device else None,
            allocator_retries=0 if on_device else None,
        )

    def _memory(self, config: TrainConfig) -> Memory:
        used = config.micro_batch_size << 20
        on_device = self._facts.device.kind == "cuda"
        return Memory(
            allocated_bytes=used << 2 if on_device else None,
            reserved_bytes=used << 3 if on_device else None,
            resident_bytes=1 << 30,
            resident_growth_bytes=used,
        )

    def _steps(self, request: TrialRequest, steps: int) -> OptimizerSteps:
        """Runs of one seed see the same batches; in low precision each loss is rounded a little differently."""
        config = request.config
        batches, rounding = random.Random(request.seed), random.Random(f"{request.seed} {config.canonical_json()}")
        samples = config.effective_batch_size
        losses = [
            self._loss(config, (step + 1) * samples)
            * batches.lognormvariate(0, BATCHES)
            * rounding.lognormvariate(0, ROUNDING[config.amp_dtype])
            for step in range(steps)
        ]
        fp16 = config.amp_dtype == "fp16"
        return OptimizerSteps(
            losses=losses,
            samples=[samples] * steps,
            skipped=[fp16 and step == 0 for step in range(steps)],  # the scaler begins too high
            loss_scales=[32768.0] * steps if fp16 else [],
            gradient_norms=[1.0] * steps if request.watch_training else [],
        )
