"""Trials in a simulated world, in virtual time, measured by the code that measures real trials."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from autotune.config import TrainConfig
from autotune.execution.backend import OnEvent
from autotune.execution.outcome import Outcome
from autotune.execution.residence import Residence, is_asked_again, may_join
from autotune.execution.simulated.loader import Killed
from autotune.execution.simulated.measured import VirtualLoop, VirtualMachine
from autotune.execution.simulated.outside import Outside
from autotune.execution.simulated.process import Luck, PageCache, TrainingProcess
from autotune.execution.simulated.shelf import Shelf
from autotune.execution.simulated.training import findings
from autotune.execution.simulated.world import World
from autotune.measure import Measurement, disturbances, drain
from autotune.measure.ready import HANDFUL
from autotune.records import (
    DeviceFacts,
    Facts,
    Failure,
    HostFacts,
    Memory,
    SideRate,
    TrialEvent,
    TrialRequest,
    TrialResult,
    TrialStatus,
    WorkloadFacts,
)

_HOST_MEMORY_BYTES = 64 << 30
_START_VARIES = 0.2
_END_S = 0.05
_LOOK_S = 3.0


class VirtualClock:
    """Moves only when a trial runs."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class _Resident:
    """A process between its runs."""

    number: int
    slowness: float
    """Drawn once for the process: the same in all its runs."""
    ran: list[TrainConfig] = field(default_factory=list)


class SimulatedBackend:
    """`seed` determines all random draws: the same requests in the same order give the same results."""

    slots = 1
    remarks: Sequence[str] = ()

    def __init__(self, world: World, clock: VirtualClock, seed: int) -> None:
        self._world = world
        self._clock = clock
        self._random = random.Random(f"{world.name} {seed}")
        self._cache = PageCache()
        self._shelf = Shelf()
        self._residence = Residence()
        self._resident: _Resident | None = None
        self._numbers = itertools.count()
        self._outside = Outside(world.hardware.noise, f"{world.name} {seed}", clock.now_s)

    def __call__(self, _spec: dict[str, Any], _folder: Path) -> SimulatedBackend:
        """As `StartBackend`."""
        return self

    def facts(self, deadline_s: float) -> Facts:
        self._clock.now_s += _LOOK_S
        return facts_of(self._world)

    def run(self, request: TrialRequest, *, deadline_s: float, on_event: OnEvent) -> TrialResult:
        ends_s = self._clock.now_s + deadline_s
        result = self._run(request, deadline_s, on_event)
        if is_asked_again(result):
            alone = request.model_copy(update={"in_any_process": False})
            return self._run(alone, ends_s - self._clock.now_s, on_event)
        return result

    def _run(self, request: TrialRequest, deadline_s: float, on_event: OnEvent) -> TrialResult:
        resident = self._resident_for(request)
        outcome = Outcome(asked_at_s=self._clock.now_s, process=str(resident.number), runs_before=len(resident.ran))

        def report(event: str, payload: dict[str, Any] | None = None) -> None:
            told = TrialEvent(event=event, at_s=process.now_s, payload=payload or {})
            outcome.events.append(told)
            self._clock.now_s = process.now_s
            on_event(told)

        process = self._begin(resident, request, deadline_s)
        try:
            report("started")
            report("result", self._train(process, request, report))
            self._clock.now_s = process.now_s + _END_S
            self._residence.note(request, outcome.result(request))
            if request.side != "loader" and self._residence.is_worth_keeping:
                self._resident = resident
        except Killed:
            outcome.deadline_s = deadline_s
            self._clock.now_s = outcome.asked_at_s + deadline_s
        outcome.ended_at_s = self._clock.now_s
        return outcome.result(request)

    def close(self) -> None:
        """Nothing to end."""

    def _resident_for(self, request: TrialRequest) -> _Resident:
        """The process for `request`. A run that needs no device gets a separate process, and the resident keeps
        waiting."""
        if request.side == "loader":
            return self._new_resident()
        resident, self._resident = self._resident, None
        return resident if resident and may_join(request, resident.ran) else self._new_resident()

    def _new_resident(self) -> _Resident:
        noise = self._world.hardware.noise
        slowness = self._random.lognormvariate(0, noise.between)
        if self._random.random() < noise.outlier_share:
            slowness *= noise.outlier_slows
        return _Resident(number=next(self._numbers), slowness=slowness)

    def _begin(self, resident: _Resident, request: TrialRequest, deadline_s: float) -> TrainingProcess:
        hardware, asked_s, is_new = self._world.hardware, self._clock.now_s, not resident.ran
        start_s = hardware.start_s if is_new else hardware.next_start_s
        start_s = hardware.fork_s if request.side == "loader" else start_s
        began_s = asked_s + start_s * self._random.lognormvariate(0, _START_VARIES)
        seed = self._random.randrange(1 << 32)
        resident.ran.append(request.config)
        slowness = self._outside.slowness(asked_s) * resident.slowness
        luck = Luck(slowness=slowness, seed=seed, phase=random.Random(seed).random())

        def process(config: TrainConfig, from_s: float, *, ready: bool = False) -> TrainingProcess:
            return TrainingProcess(
                self._world,
                config,
                began_s=from_s,
                deadline_s=asked_s + deadline_s,
                luck=luck,
                bursts=self._outside.bursts(from_s),
                cache=self._cache,
                is_new=is_new,
                ready=ready,
            )

        if request.side != "step":
            return process(request.config, began_s)
        workers = min(request.config.num_workers, HANDFUL)
        few = request.config.with_values({"num_workers": workers, "prefetch_factor": 1 if workers else None})
        waited_s = self._shelf.seconds(few.micro_batch_size, process(few, began_s).loader, workers)
        return process(request.config, began_s + waited_s, ready=True)

    def _train(self, process: TrainingProcess, request: TrialRequest, report: Any) -> dict[str, Any]:
        """The payload of the last event."""
        memory = self._memory(request)
        last: dict[str, Any] = {"failure": None, "memory": memory.model_dump()}
        if request.side != "loader" and self._world.memory_bytes(request.config) > self._world.hardware.memory_bytes:
            process.cores.run_until(process.now_s + process.first_step_s)
            failure = Failure(reason="simulated: out of memory").model_dump()
            return {**last, "status": TrialStatus.OOM, "failure": failure}
        loop = VirtualLoop(process, request)
        machine = VirtualMachine(process, _HOST_MEMORY_BYTES, request.seed)
        judge = partial(disturbances, cpus=self._world.hardware.cores)
        if request.side == "loader":
            return {
                **last,
                "status": TrialStatus.OK,
                **_named(drain(loop, loop, request, machine=machine, judge=judge)),
            }
        measurement = Measurement(loop, loop, request, report, machine=machine, judge=judge)
        last["status"] = measurement.run()
        if request.side == "step":
            return {**last, **_named(measurement.step_rate())}
        rates = measurement.rates()
        seen = {name: finding.model_dump(mode="json") for name, finding in findings(request).items()}
        return {**last, **seen, "rates": rates.model_dump(mode="json") if rates else None}

    def _memory(self, request: TrialRequest) -> Memory:
        used = self._world.memory_bytes(request.config)
        on_device = self._world.hardware.device == "cuda"
        return Memory(
            allocated_bytes=used if on_device else None,
            reserved_bytes=math.ceil(1.1 * used) if on_device else None,
            resident_bytes=(1 << 30) + (0 if on_device else used),
            resident_growth_bytes=(1 << 28) if on_device else used,
        )


def _named(rate: SideRate | None) -> dict[str, Any]:
    return {"side_rate": rate.model_dump(mode="json") if rate else None}


def facts_of(world: World) -> Facts:
    hardware = world.hardware
    on_device = hardware.device == "cuda"
    return Facts(
        device=DeviceFacts(
            kind=hardware.device,
            index=0 if on_device else None,
            name=hardware.name,
            total_memory_bytes=hardware.memory_bytes,
            compute_capability=(9, 0) if on_device else None,
            amp_dtypes=("bf16", "fp16") if on_device else ("bf16",),
        ),
        host=HostFacts(
            cpu=hardware.name,
            physical_cores=hardware.cores,
            usable_cores=hardware.cores,
            default_num_threads=hardware.cores,
            memory_bytes=_HOST_MEMORY_BYTES,
            shm_bytes=_HOST_MEMORY_BYTES // 2,
            versions={"torch": "simulated"},
        ),
        workload=WorkloadFacts(
            parameters=1_000_000,
            dataset_samples=world.samples,
            input_shape=(3, 224, 224),
            activation_checkpointing_refusal=None,
            fused_optimizer_refusal=None,
            batch_norm=True,
        ),
    )
