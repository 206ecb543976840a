"""What the measuring code sees of a virtual training process: its loop, its loader and its machine."""

from __future__ import annotations

import math
import random

from autotune.execution.simulated.process import TrainingProcess
from autotune.execution.simulated.training import Losses
from autotune.measure import LoaderLog
from autotune.records import MachineState, OptimizerSteps, StepPhase, TrialRequest

_USUAL_OUTSIDE = 0.02
"""Cores that other work on any machine keeps busy."""
_TICKS_S = 0.01
"""Error of the counters of CPU time, at both edges of a block together."""


class VirtualLoop:
    """Is the loop and the loader of a `Measurement`."""

    ranks = 1

    def __init__(self, process: TrainingProcess, request: TrialRequest) -> None:
        self._process = process
        self._losses = Losses(request)
        self._harvested = 0
        self.trains_on_cpu = process.world.hardware.device == "cpu"

    @property
    def samples(self) -> int:
        return self._process.samples

    @property
    def steps_done(self) -> int:
        return self._process.steps_done

    def clock(self) -> float:
        return self._process.now_s

    def begin(self, steps: int) -> None:
        self._process.restart_phases()

    def optimizer_step(self) -> None:
        self._process.optimizer_step()

    def synchronise(self) -> None:
        self._process.synchronise()

    def phases(self, seconds: float) -> dict[StepPhase, float]:
        return self._process.phases(seconds)

    def discard(self, batches: int) -> None:
        for _ in range(batches):
            self._process.loader.take()

    def harvest(self) -> OptimizerSteps:
        steps = self.steps_done - self._harvested
        self._harvested = self.steps_done
        return self._losses.next(steps)

    def read(self) -> LoaderLog:
        return self._process.log


class VirtualMachine:
    """The counters of the process's cores, with the errors that real ones have."""

    def __init__(self, process: TrainingProcess, host_memory_bytes: int, seed: int) -> None:
        self._process = process
        self._memory_bytes = host_memory_bytes
        self._random = random.Random(f"machine {seed}")
        self._phase = self._random.random()
        self.start()

    def find_workers(self) -> None:
        self.start()

    def start(self) -> None:
        cores = self._process.cores
        self._before = cores.now_s, cores.own_s, self._loader_s(), cores.outside_s

    def _loader_s(self) -> float:
        """CPU seconds of the loader as kernels count them: in whole ticks, with a start somewhere inside a tick."""
        return math.floor(self._process.cores.loader_s / _TICKS_S + self._phase) * _TICKS_S

    def read(self) -> MachineState:
        cores, (at_s, own_s, loader_s, outside_s) = self._process.cores, self._before
        seconds = max(cores.now_s - at_s, 1e-9)
        error = self._random.gauss(0, _TICKS_S) / seconds
        usual = abs(self._random.gauss(0, _USUAL_OUTSIDE))
        resident = (1 << 30) + self._random.randrange(1 << 22)  # pools grow and shrink
        on_device = self._process.world.hardware.device == "cuda"
        return MachineState(
            outside_load=max((cores.outside_s - outside_s) / seconds + usual + error, 0.0),
            own_load=(cores.own_s - own_s) / seconds,
            loader_load=(self._loader_s() - loader_s) / seconds,
            cores=self._process.world.hardware.cores,
            available_memory_bytes=self._memory_bytes - resident - self._random.randrange(1 << 26),
            shm_free_bytes=self._memory_bytes // 2,
            resident_bytes=resident,
            device_allocated_bytes=self._process.world.memory_bytes(self._process.config) if on_device else None,
            allocator_retries=0 if on_device else None,
        )
