"""One rank of a trial: it follows the orders of rank 0, combines the results of all ranks, and knows how long it waits
for others."""

from __future__ import annotations

import time
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import nn

from autotune.records import OptimizerSteps
from autotune.trial.board import Diary
from autotune.trial.crew import END, HARVEST, discarded
from autotune.trial.loop import Loop
from autotune.trial.timeline import make_timeline

_STEPS_TO_SETTLE = 2
"""The first steps compile, and grow the allocator's cache."""


class Ranks:
    """This process as a rank of the default process group, which uses gloo for tensors on the CPU."""

    def __init__(self, device: torch.device, diary: Diary, root: psutil.Process) -> None:
        """`root`: the process that started all ranks."""
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.root = root
        self._diary = diary
        self._timeline = make_timeline(device, time.monotonic)
        self._steps = 0
        self._own_s, self._step_s, self._timed_steps = 0.0, 0.0, 0
        self._began_s: float | None = None

    def lead(self, order: int) -> None:
        if self.rank == 0:
            dist.broadcast(torch.tensor(order), 0)
            self._begin(order)

    def follow(self, loop: Loop) -> None:
        """Follow the orders of rank 0 until it ends. Raises what the workload raises, and Diverged."""
        order = torch.tensor(END)
        while True:
            dist.broadcast(order, 0)
            number = int(order)
            self._begin(number)
            if number == END:
                return
            if number == HARVEST:
                loop.harvest()
                continue
            if discarded(number):
                loop.discard(discarded(number))
                continue
            for _ in range(number):
                loop.optimizer_step()
            loop.synchronise()

    def pool(self, steps: OptimizerSteps) -> OptimizerSteps:
        told = torch.tensor([steps.losses, [float(count) for count in steps.samples]], dtype=torch.float64)
        dist.all_reduce(told)
        losses, samples = told.tolist()
        return steps.model_copy(
            update={"losses": [loss / self.size for loss in losses], "samples": [round(count) for count in samples]}
        )

    def note_step(self) -> None:
        self._diary.step()
        self._timeline.mark("optimizer")
        self._steps += 1

    def watch(self, model: nn.Module) -> None:
        """Note each forward pass from now on: only the time after the last forward pass of a step may include waiting
        for other ranks."""
        model.register_forward_hook(self._note_forward)

    def times(self) -> tuple[float | None, float | None]:
        """Mean seconds of an optimizer step until its last forward pass ends, and of the whole step."""
        if not self._timed_steps:
            return None, None
        return self._own_s / self._timed_steps, self._step_s / self._timed_steps

    def _note_forward(self, *_: Any) -> None:
        self._diary.forward()
        self._timeline.mark("forward_backward")

    def _begin(self, order: int) -> None:
        """End the previous stretch, if there was one, and start another. The device has no work left."""
        now_s = time.monotonic()
        if self._began_s is not None:
            seconds = now_s - self._began_s
            self._own_s += self._timeline.phases(seconds).get("forward_backward", 0.0)
            self._step_s += seconds
            self._timed_steps += self._steps
        self._steps = 0
        timed = order > END and self._diary.steps >= _STEPS_TO_SETTLE
        self._began_s = now_s if timed else None
        if timed:
            self._timeline.restart()
