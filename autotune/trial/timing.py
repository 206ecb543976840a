"""The measurement: warm up until the step time has settled, then time blocks of whole optimizer steps.

The device is waited for at the edges of a block only, so that host and device overlap inside it as they do in training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from autotune.records import Block, OptimizerSteps, TrialRequest, WarmUp
from autotune.stats import relative_standard_error
from autotune.training import StepOutput
from autotune.trial.failure import Diverged

_WARM_UP_SHARE = 0.4
"""Of the time limit, at the most: a warm-up that has not settled by then is marked."""
_SETTLED = 0.15
"""Two steps in a row whose times differ by less than this share, the later not on a downward trend."""
_BLOCKS_PER_LIMIT = 12
_LONGEST_BLOCK_S = 0.5
"""Dwarfs the clock and the synchronisation; longer blocks would only hide the spread."""
_OVERRUN = 2.0
_FEWEST_BLOCKS = 2
"""Of a trial whose steps are so long that its time is spent before `min_blocks`."""

Clock = Callable[[], float]


class Step(Protocol):
    def __call__(self, batch: Any) -> StepOutput: ...


@dataclass
class Loop:
    """The training loop of a trial, one optimizer step at a time, with what it says and what it waits for."""

    batches: Iterator[Any]
    step: Step
    clock: Clock
    synchronise: Callable[[], None]
    data_wait_s: float = 0.0
    samples: int = 0
    steps_done: int = 0
    _losses: list[torch.Tensor] = field(default_factory=list)
    _samples: list[int] = field(default_factory=list)
    _skipped: list[bool] = field(default_factory=list)

    def optimizer_step(self) -> None:
        """Micro-batches until the window closes; nothing is waited for but data."""
        closed = False
        while not closed:
            asked = self.clock()
            batch = next(self.batches)
            self.data_wait_s += self.clock() - asked
            out = self.step(batch)
            closed = out.window_closed
        self.samples += out.samples
        self.steps_done += 1
        self._losses.append(out.loss)
        self._samples.append(out.samples)
        self._skipped.append(not out.optimizer_stepped)

    def harvest(self) -> OptimizerSteps:
        """What the steps since the last harvest said. Copies from the device: for the edges of blocks only.

        Raises Diverged when a loss is not finite.
        """
        losses = torch.stack(self._losses).double().tolist() if self._losses else []
        steps = OptimizerSteps(losses=losses, samples=self._samples, skipped=self._skipped)
        self._losses, self._samples, self._skipped = [], [], []
        for offset, loss in enumerate(losses):
            if not math.isfinite(loss):
                number = self.steps_done - len(losses) + offset + 1
                raise Diverged(f"the loss is {loss} at optimizer step {number}")
        return steps


class Measurement:
    """Warm-up and blocks of one trial, reported as they come."""

    def __init__(self, loop: Loop, request: TrialRequest, report: Callable[[str, dict[str, Any]], None]) -> None:
        self._loop = loop
        self._request = request
        self._report = report
        self._started = loop.clock()

    def run(self, head_start_spent: Callable[[], bool]) -> None:
        """Warm up, then time blocks until the request is met. Raises whatever the workload raises, and Diverged."""
        step_time_s = self._warm_up(head_start_spent)
        block_s = min(_LONGEST_BLOCK_S, self._request.time_limit_s / _BLOCKS_PER_LIMIT)
        steps_per_block = max(1, round(block_s / step_time_s))
        blocks: list[Block] = []
        while not self._done(blocks):
            blocks.append(self._block(steps_per_block, block_s))
            steps = self._loop.harvest()
            self._report("block", {"block": blocks[-1].model_dump(), "steps": steps.model_dump(mode="json")})

    @property
    def _spent_s(self) -> float:
        return self._loop.clock() - self._started

    def _warm_up(self, head_start_spent: Callable[[], bool]) -> float:
        """Train until step times settle and the loader's head start is spent; the seconds of the last step."""
        times: list[float] = []
        settled = False
        limit_s = self._request.time_limit_s * _WARM_UP_SHARE
        while not settled and (len(times) < 2 or self._spent_s < limit_s):
            before = self._loop.clock()
            self._loop.optimizer_step()
            self._loop.synchronise()
            times.append(self._loop.clock() - before)
            if len(times) == 1:  # compilation counts against the budget, not against this trial's time to measure
                self._started = self._loop.clock()
            settled = has_settled(times) and head_start_spent()
        warm_up = WarmUp(steps=len(times), seconds=math.fsum(times), first_step_s=times[0], settled=settled)
        steps = self._loop.harvest()
        self._report("warm", {"warm_up": warm_up.model_dump(), "steps": steps.model_dump(mode="json")})
        return times[-1]

    def _block(self, steps: int, block_s: float) -> Block:
        """`steps` optimizer steps; fewer when they take much longer than the `block_s` that the warm-up promised."""
        loop = self._loop
        samples, waited = loop.samples, loop.data_wait_s
        loop.synchronise()
        before = loop.clock()
        done = 0
        while done < steps and (done == 0 or loop.clock() - before < _OVERRUN * block_s):
            loop.optimizer_step()
            done += 1
        loop.synchronise()
        seconds = loop.clock() - before
        return Block(
            steps=done,
            samples=loop.samples - samples,
            seconds=seconds,
            data_wait_s=min(loop.data_wait_s - waited, seconds),
        )

    def _done(self, blocks: list[Block]) -> bool:
        request = self._request
        if self._loop.steps_done < request.min_steps or len(blocks) < _FEWEST_BLOCKS:
            return False
        if len(blocks) >= request.max_blocks or self._spent_s >= request.time_limit_s:
            return True
        return len(blocks) >= request.min_blocks and relative_standard_error(blocks) < request.target_relative_error


def has_settled(times: list[float]) -> bool:
    """Whether step times have stopped falling: the last two alike, and the last not the fastest by far.

    The first step never counts: it compiles, searches for convolution algorithms and grows the allocator.
    """
    if len(times) < 3:
        return False
    *_, earlier, last = times[1:]
    return abs(last / earlier - 1) < _SETTLED
