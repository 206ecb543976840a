"""A training process in virtual time: the loop that takes a loader's batches, and the device."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from autotune.config import TrainConfig
from autotune.execution.simulated.cores import Burst, Cores
from autotune.execution.simulated.loader import Killed, VirtualLoader
from autotune.execution.simulated.world import World
from autotune.measure import LoaderLog, ReadyBatches
from autotune.records import StepPhase

_AHEAD, _AHEAD_PINNED = 1, 3
"""Micro-batches that the device may still have to do when the host asks for another. A copy from memory that is not
pinned waits for all earlier work."""
_CHUNK = 512


@dataclass(frozen=True, kw_only=True)
class Luck:
    """The random properties of one process."""

    slowness: float = 1.0
    """Factor on all of its seconds."""
    seed: int = 0
    phase: float = 0.0
    """Where in the period of slow batches it begins, as a share of the period: each run shuffles the data anew."""


NO_LUCK = Luck()


@dataclass
class PageCache:
    """The machine's page cache: what one process has read, later processes find there."""

    samples: float = 0.0


class TrainingProcess:
    """Trains from `began_s` on, when model and loader have been built. Ends with `Killed` at `deadline_s`."""

    def __init__(
        self,
        world: World,
        config: TrainConfig,
        *,
        began_s: float = 0.0,
        deadline_s: float = math.inf,
        luck: Luck = NO_LUCK,
        bursts: Iterable[Burst] = (),
        cache: PageCache | None = None,
        warm: bool = False,
        is_new: bool = True,
        ready: bool = False,
    ) -> None:
        """`cache`: None for one that holds the whole data set. `warm`: the first step, the start of the loader
        processes and the first epoch are over, and an epoch begins. `is_new`: whether it has run nothing before.
        `ready`: whether it trains on batches that are ready, independent of the loader."""
        hardware, noise = world.hardware, world.hardware.noise
        self.world, self.config = world, config
        self.cores = Cores(hardware.cores, began_s, bursts)
        prefetch = config.prefetch_factor or 2
        epoch_batches = world.epoch_batches(config)
        self.log = LoaderLog(workers=config.num_workers, prefetch=prefetch, epoch_batches=epoch_batches)
        self.loader = VirtualLoader(
            self.cores,
            self.log,
            self._fetch,
            epoch_batches=epoch_batches,
            restart_s=self._restart_s,
            deadline_s=deadline_s,
        )
        self._ready = ReadyBatches(range(1), lambda: self.now_s) if ready else None
        self._ready_batches = iter(self._ready) if self._ready else None
        if self._ready:
            self.log = self._ready.read()
        self.micro_batches = self.steps_done = 0
        self.seconds: dict[StepPhase, float] = {}
        self._deadline_s = deadline_s
        self._warm = warm
        self.first_step_s = hardware.first_step_s if is_new else hardware.next_first_step_s
        self._cache = cache or PageCache(math.inf)
        self._asynchronous = hardware.asynchronous
        # Training on the CPU uses all cores that PyTorch takes by default; a host that only launches kernels uses one.
        self._threads = min(config.num_threads or hardware.cores, hardware.cores)
        random = np.random.default_rng(luck.seed)
        self._step_noise = _factors(random, noise.step)
        self._fetch_noise = _factors(random, noise.fetch / math.sqrt(config.micro_batch_size))
        self._slowness = luck.slowness
        self._before_slow = int(luck.phase * world.slow_every)
        step = world.step
        self._compute_s = luck.slowness * step.compute_s(config)
        self._copy_s = luck.slowness * step.transfer_s(config)
        self._optimizer_s = luck.slowness * step.optimizer_s
        self._host_s = luck.slowness * step.host_s
        self._wait_s = luck.slowness * world.sample_wait_s * config.micro_batch_size
        self._fetch_cpu_s = luck.slowness * world.sample_cpu_s * config.micro_batch_size
        self._device_ends: deque[float] = deque([began_s], maxlen=_AHEAD_PINNED + 1)
        self._ahead = _AHEAD_PINNED if config.pin_memory else _AHEAD

    @property
    def now_s(self) -> float:
        return self.cores.now_s

    @property
    def samples(self) -> int:
        return self.steps_done * self.config.effective_batch_size

    def restart_phases(self) -> None:
        self.seconds = dict.fromkeys(("data_wait", "copy", "forward_backward", "optimizer"), 0.0)

    def optimizer_step(self) -> None:
        for number in range(1, self.config.grad_accum_steps + 1):
            self.micro_batch(last=number == self.config.grad_accum_steps)
        self.steps_done += 1

    def micro_batch(self, *, last: bool) -> None:
        """Take one micro-batch and train on it; `last`: the optimizer's step follows."""
        if self.now_s > self._deadline_s:
            raise Killed
        asked_s = self.now_s
        if self._ready_batches is None:
            self.loader.take()
        else:
            next(self._ready_batches)
        waited_s = self.now_s - asked_s
        factor = next(self._step_noise)
        optimizer_s = self._optimizer_s * factor if last else 0.0
        compute_s, copy_s = self._compute_s * factor, self._copy_s * factor
        if not self.micro_batches and not self._warm:
            self.cores.occupy(self._slowness * self.first_step_s, 1)
        self.micro_batches += 1
        if self._asynchronous:
            self._ask_device(copy_s + compute_s + optimizer_s)
        else:
            self.cores.occupy(compute_s + optimizer_s, self._threads)
            self._count("data_wait", waited_s)
        self._count("copy", copy_s)
        self._count("forward_backward", compute_s)
        self._count("optimizer", optimizer_s)

    def synchronise(self) -> None:
        self.cores.run_until(max(self._device_ends[-1], self.now_s))
        if self.now_s > self._deadline_s:
            raise Killed

    def phases(self, seconds: float) -> dict[StepPhase, float]:
        """How the `seconds` since `restart_phases` were spent. On an asynchronous device the rest is idle time."""
        parts = dict(self.seconds)
        if self._asynchronous:
            parts["data_wait"] = max(seconds - math.fsum(parts.values()), 0.0)
        whole = math.fsum(parts.values())
        return {phase: part * seconds / whole for phase, part in parts.items()} if whole else {}

    def _count(self, phase: StepPhase, seconds: float) -> None:
        if self.seconds:
            self.seconds[phase] += seconds

    def _ask_device(self, seconds: float) -> None:
        """The host copies (which waits for earlier work), launches, and goes on; the device starts when it is free."""
        if len(self._device_ends) >= self._ahead:
            self.cores.run_until(max(self._device_ends[-self._ahead], self.now_s))
        began_s = self.now_s
        self.cores.occupy(self._host_s, 1)
        start_s = max(self._device_ends[-1], began_s)
        self._device_ends.append(max(start_s + seconds, self.now_s))

    def _restart_s(self, first: bool) -> float:
        hardware, workers = self.world.hardware, self.config.num_workers
        if not workers:
            return 0.0
        starts = first and not self._warm
        return self._slowness * (workers * hardware.worker_start_s if starts else hardware.epoch_restart_s)

    def _fetch(self, batch: int) -> tuple[float, float]:
        """Seconds that loading this micro-batch waits, and computes."""
        factor = next(self._fetch_noise)
        world = self.world
        if world.slow_every and (self._before_slow + batch + 1) % world.slow_every == 0:
            factor *= world.slow_times
        cold = world.cold_times if self._cache.samples < world.samples else 1.0
        self._cache.samples += self.config.micro_batch_size
        return factor * cold * self._wait_s, factor * self._fetch_cpu_s


def _factors(random: np.random.Generator, relative: float) -> Iterator[float]:
    """Factors around one: their mean is 1."""
    while True:
        if relative:
            yield from random.lognormal(-(relative**2) / 2, relative, _CHUNK).tolist()
        else:
            yield from [1.0] * _CHUNK
