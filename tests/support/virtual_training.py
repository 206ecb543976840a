"""A training loop and a DataLoader in virtual time: what a run of hours gets is known exactly, because it can be run.

The loader is PyTorch's: batch k goes to worker k mod W; W × prefetch batches are dispatched when an epoch begins, and
one more for each that is taken; batches come in order. A step runs on the host, or on a device that the host only
queues it for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from autotune.config import TrainConfig
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
        self.workers, self.capacity = workers, workers * prefetch
        self._fetch_s = fetch_s if callable(fetch_s) else lambda _batch: fetch_s
        self._step_s = step_s if callable(step_s) else lambda _batch: step_s
        self._first_step_s = first_step_s
        self._batches = batches
        self._accumulate = accumulate
        self._on_device = on_device
        self.trains_on_cpu = not on_device
        self._restart_s = restart_s
        self._now_s = 1000.0
        self._device_free_s = self._idle_s = 0.0
        self._taken = self._epoch_start = self._dispatched = self._trained = 0
        self._ready_s: dict[int, float] = {}
        self._free_s = [self._now_s] * workers
        self._cpu_s = [0.0] * workers
        self._finishing: list[deque[tuple[float, float]]] = [deque() for _ in range(workers)]
        known = None if iterable or batches == ENDLESS else batches
        self._log = LoaderLog(workers=workers, prefetch=prefetch, epoch_batches=known)
        self.discards = 0
        self.samples = 0
        self.steps_done = 0
        self.blocks: list[Block] = []
        self.warm_up: WarmUp | None = None

    def measure(self, *, time_limit_s: float = 8.0, **request: Any) -> tuple[TrialStatus, Rates]:
        config = TrainConfig(
            grad_accum_steps=self._accumulate,
            num_workers=self.workers,
            prefetch_factor=self.capacity // self.workers if self.workers else None,
        )
        asked = TrialRequest(config=config, seed=0, time_limit_s=time_limit_s, **request)
        measurement = Measurement(self, self, asked, self._report, machine=_Machine(), judge=_undisturbed)
        status = measurement.run()
        rates = measurement.rates()
        assert rates is not None
        return status, rates

    def run_of_hours(self, epochs: int = 20) -> float:
        """Samples per second of a plain loop over whole epochs after the first; in an endless epoch, over 20,000
        batches after 2,000."""
        first, last = (self._batches, epochs * self._batches) if self._batches < ENDLESS else (2_000, 20_000)
        while self._taken < first:
            self.optimizer_step()
        self.synchronise()
        began_s, samples = self._now_s, self.samples
        while self._taken < first + last:
            self.optimizer_step()
        self.synchronise()
        return (self.samples - samples) / (self._now_s - began_s)

    def clock(self) -> float:
        return self._now_s

    def begin(self, steps: int) -> None:
        self._idle_s = 0.0

    def optimizer_step(self) -> None:
        for _ in range(self._accumulate):
            batch = self._take()
            step_s = self._step_s(batch)
            if not self._trained and self._first_step_s is not None:
                step_s = self._first_step_s
            self._trained += 1
            self._now_s = max(self._now_s, self._device_free_s - _AHEAD * step_s)
            idle_s = max(self._now_s - self._device_free_s, 0.0) if self._on_device else 0.0
            self._idle_s += idle_s
            self._device_free_s = max(self._device_free_s, self._now_s) + step_s
            if not self._on_device:
                self.synchronise()
        self.samples += SAMPLES * self._accumulate
        self.steps_done += 1

    def synchronise(self) -> None:
        self._now_s = max(self._now_s, self._device_free_s)
        self._device_free_s = self._now_s

    def phases(self, seconds: float) -> dict[StepPhase, float]:
        return {"data_wait": min(self._idle_s, seconds), "forward_backward": max(seconds - self._idle_s, 0.0)}

    def discard(self, batches: int) -> None:
        self.discards += batches
        for _ in range(batches):
            self._take()

    def harvest(self) -> OptimizerSteps:
        return OptimizerSteps(losses=[], samples=[], skipped=[])

    def read(self) -> LoaderLog:
        for worker, finishing in enumerate(self._finishing):
            while finishing and finishing[0][0] <= self._now_s:
                self._log.finish(worker, *finishing.popleft())
        return self._log

    def _report(self, event: str, payload: dict[str, Any]) -> None:
        if event == "block":
            self.blocks.append(Block.model_validate(payload["block"]))
        else:
            self.warm_up = WarmUp.model_validate(payload["warm_up"])

    def _take(self) -> int:
        """Wait for the next batch; its number."""
        asked_s = self._now_s
        if self._taken - self._epoch_start in (0, self._batches):
            self._begin_epoch()
        batch = self._taken
        if self.workers:
            self._now_s = max(self._now_s, self._ready_s.pop(batch))
        else:
            self._now_s += self._fetch_s(batch)
        if not self._on_device:
            self._idle_s += self._now_s - asked_s
        self._taken += 1
        self._log.take(asked_s, self._now_s)
        if self.workers:
            self._dispatch()
        return batch

    def _begin_epoch(self) -> None:
        if self._taken:
            self.read()
            self._log.end_epoch()
        self._epoch_start = self._dispatched = self._taken
        self._now_s += self._restart_s if self._taken else 0.0
        self._log.begin_epoch(self._now_s, self._restart_s if self._taken else 0.0)
        for _ in range(self.capacity):
            self._dispatch()

    def _dispatch(self) -> None:
        number = self._dispatched - self._epoch_start
        if number >= self._batches:
            return
        worker = number % self.workers
        seconds = self._fetch_s(self._dispatched)
        self._free_s[worker] = max(self._now_s, self._free_s[worker]) + seconds
        self._cpu_s[worker] += seconds / 2
        self._ready_s[self._dispatched] = self._free_s[worker]
        self._finishing[worker].append((self._free_s[worker], self._cpu_s[worker]))
        self._dispatched += 1


class _Machine:
    def find_workers(self) -> None:
        pass

    def start(self) -> None:
        pass

    def read(self) -> MachineState:
        return MachineState(available_memory_bytes=0, resident_bytes=0)


def _undisturbed(_state: MachineState, _seconds: float) -> tuple[Disturbance, ...]:
    return ()
