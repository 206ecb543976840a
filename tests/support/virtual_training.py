"""A training loop in virtual time, with steps and fetches that a test says: what a run of hours gets is known exactly,
because it can be run.

Its loader is that of the simulated worlds. A step runs on the host, or on a device that the host only queues it for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autotune.config import TrainConfig
from autotune.execution.simulated.cores import Cores
from autotune.execution.simulated.loader import VirtualLoader
from autotune.measure import LoaderLog, Measurement
from autotune.records import (
    Block,
    Disturbance,
    MachineState,
    OptimizerSteps,
    Rates,
    StepPhase,
    TrialRequest,
    TrialStatus,
    WarmUp,
)

SAMPLES = 8
"""Of a micro-batch."""
ENDLESS = 10**9
_ENOUGH_CORES = 1000
_AHEAD = 2
"""Steps that a device has queued before its host has to wait."""


class VirtualTraining:
    """Is the loop, the loader and the machine of a `Measurement`.

    `fetch_s`, `step_s`: seconds of loading, and of training on, the micro-batch of that number, counted over all
    epochs; the very first step takes `first_step_s`. `batches`: of an epoch; the log is told so unless `iterable`.
    """

    ranks = 1

    def __init__(
        self,
        *,
        workers: int = 2,
        prefetch: int = 2,
        fetch_s: Callable[[int], float] | float = 0.01,
        step_s: Callable[[int], float] | float = 0.01,
        first_step_s: float | None = None,
        batches: int = ENDLESS,
        iterable: bool = False,
        accumulate: int = 1,
        on_device: bool = False,
        restart_s: float = 0.0,
    ) -> None:
        self._fetch_s = fetch_s if callable(fetch_s) else lambda _batch: fetch_s
        self._step_s = step_s if callable(step_s) else lambda _batch: step_s
        self._first_step_s = first_step_s
        self._batches = batches
        self._accumulate = accumulate
        self._on_device = on_device
        self.trains_on_cpu = not on_device
        self._cores = Cores(_ENOUGH_CORES, 1000.0)
        self._device_free_s = self._idle_s = 0.0
        known = None if iterable or batches == ENDLESS else batches
        self._log = LoaderLog(workers=workers, prefetch=prefetch, epoch_batches=known)
        self._loader = VirtualLoader(
            self._cores,
            self._log,
            self._fetch,
            epoch_batches=batches,
            restart_s=lambda first: 0.0 if first else restart_s,
        )
        self.discards = 0
        self.samples = 0
        self.steps_done = 0
        self.blocks: list[Block] = []
        self.warm_up: WarmUp | None = None

    def measure(self, *, time_limit_s: float = 8.0, **request: Any) -> tuple[TrialStatus, Rates]:
        config = TrainConfig(
            grad_accum_steps=self._accumulate,
            num_workers=self._log.workers,
            prefetch_factor=self._log.prefetch if self._log.workers else None,
        )
        asked = TrialRequest(config=config, seed=0, time_limit_s=time_limit_s, **request)
        measurement = Measurement(self, self, asked, self._report, machine=_Machine(), judge=_undisturbed)
        status = measurement.run()
        rates = measurement.rates()
        assert rates is not None
        return status, rates

    def run_of_hours(self, epochs: int = 20) -> float:
        """Samples per second of a plain loop over whole epochs after the first; in an endless epoch, over 8,000
        batches after 1,000, both whole periods of a slow batch every 50."""
        first, last = (self._batches, epochs * self._batches) if self._batches < ENDLESS else (1_000, 8_000)
        while self._loader.taken < first:
            self.optimizer_step()
        self.synchronise()
        began_s, samples = self.clock(), self.samples
        while self._loader.taken < first + last:
            self.optimizer_step()
        self.synchronise()
        return (self.samples - samples) / (self.clock() - began_s)

    def clock(self) -> float:
        return self._cores.now_s

    def begin(self, steps: int) -> None:
        self._idle_s = 0.0

    def optimizer_step(self) -> None:
        for _ in range(self._accumulate):
            asked_s = self.clock()
            batch = self._loader.take()
            waited_s = self.clock() - asked_s
            first_s = None if batch else self._first_step_s
            step_s = self._step_s(batch) if first_s is None else first_s
            self._wait_until(self._device_free_s - _AHEAD * step_s)
            self._idle_s += max(self.clock() - self._device_free_s, 0.0) if self._on_device else waited_s
            self._device_free_s = max(self._device_free_s, self.clock()) + step_s
            if not self._on_device:
                self.synchronise()
        self.samples += SAMPLES * self._accumulate
        self.steps_done += 1

    def synchronise(self) -> None:
        self._wait_until(self._device_free_s)
        self._device_free_s = self.clock()

    def phases(self, seconds: float) -> dict[StepPhase, float]:
        return {"data_wait": min(self._idle_s, seconds), "forward_backward": max(seconds - self._idle_s, 0.0)}

    def discard(self, batches: int) -> None:
        self.discards += batches
        for _ in range(batches):
            self._loader.take()

    def harvest(self) -> OptimizerSteps:
        return OptimizerSteps(losses=[], samples=[], skipped=[])

    def read(self) -> LoaderLog:
        self._cores.run_until(self.clock())
        return self._log

    def _report(self, event: str, payload: dict[str, Any]) -> None:
        if event == "block":
            self.blocks.append(Block.model_validate(payload["block"]))
        else:
            self.warm_up = WarmUp.model_validate(payload["warm_up"])

    def _fetch(self, batch: int) -> tuple[float, float]:
        """Half of it waiting, half of it computing."""
        seconds = self._fetch_s(batch)
        return seconds / 2, seconds / 2

    def _wait_until(self, at_s: float) -> None:
        self._cores.run_until(max(at_s, self.clock()))


class _Machine:
    def find_workers(self) -> None:
        pass

    def start(self) -> None:
        pass

    def read(self) -> MachineState:
        return MachineState(available_memory_bytes=0, resident_bytes=0)


def _undisturbed(_state: MachineState, _seconds: float) -> tuple[Disturbance, ...]:
    return ()
