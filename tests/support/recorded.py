"""Trials played back from a recording: the real measurement, on blocks that a real and noisy machine once timed.

Each trial is a stretch of one recorded process, begun at a random block: fresh processes differ as they did then, and
bursts of other work last as long as they did.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from autotune.config import TrainConfig
from autotune.execution import OnEvent
from autotune.execution.outcome import Outcome
from autotune.measure import LoaderLog, Measurement
from autotune.records import (
    Block,
    Disturbance,
    Facts,
    MachineState,
    Memory,
    OptimizerSteps,
    StepPhase,
    TrialEvent,
    TrialRequest,
    TrialResult,
)
from autotune.stats import throughput, undisturbed
from support.bench import Bench
from support.facts import cpu_facts
from support.simulation import Clock

_SPEC: dict[str, Any] = {
    "data": {"synthetic": {"image_size": 64}},
    "training": {"effective_batch_size": 32},
    "baseline": {"micro_batch_size": 8},
    "budget": "30m",
    "search": {
        "micro_batch_size": [8, 16, 32],
        "amp_dtype": ["none", "bf16"],
        "memory_format": ["contiguous", "channels_last"],
        "num_workers": 0,
        "compile": "none",
        "fused_optimizer": False,
        "num_threads": 4,
        "activation_checkpointing": False,
    },
}
_CALM = MachineState(available_memory_bytes=8 << 30, resident_bytes=1 << 30)


@dataclass(frozen=True)
class RecordedRun:
    """One process of one configuration. `blocks` holds one for each optimizer step, as long as those timed with it."""

    start_up_s: float
    first_step_s: float
    blocks: tuple[Block, ...]


class Recording:
    """A table written by `benchmarks/record_space.py`."""

    def __init__(self, path: Path) -> None:
        document = json.loads(gzip.decompress(path.read_bytes()))
        self.runs: dict[TrainConfig, list[RecordedRun]] = {}
        for run in document["runs"]:
            blocks = tuple(
                Block(steps=1, samples=samples // steps, seconds=seconds / steps, phases={}, disturbances=disturbances)
                for steps, samples, seconds, disturbances in run["blocks"]
                for _ in range(steps)
            )
            config = TrainConfig.from_dict(run["config"])
            self.runs.setdefault(config, []).append(RecordedRun(run["start_up_s"], run["first_step_s"], blocks))

    @classmethod
    def noisy(cls) -> Recording:
        """That of the machine with bursts of other work."""
        return cls(Path(__file__).parents[1] / "search" / "noisy_space.json.gz")

    def truth(self, config: TrainConfig) -> float:
        """Samples per second over all that was recorded: the long measurement that a search cannot afford."""
        return throughput([block for run in self.runs[config] for block in undisturbed(run.blocks)])


@dataclass
class _Playback:
    """Stands in for the training loop, with the steps of a recording."""

    clock: Clock
    blocks: Iterator[Block]
    samples: int = 0
    steps_done: int = 0
    disturbances: set[Disturbance] = field(default_factory=set)
    """Of the steps since they were last looked at."""
    _harvested: int = 0
    ranks: int = 1
    trains_on_cpu: bool = True
    log: LoaderLog = field(default_factory=lambda: LoaderLog(workers=0, prefetch=0, epoch_batches=None))

    def __post_init__(self) -> None:
        self.log.begin_epoch(self.clock())

    def read(self) -> LoaderLog:
        """What loading took was not recorded: the steps hold it."""
        return self.log

    def begin(self, steps: int) -> None:
        pass

    def phases(self, seconds: float) -> dict[StepPhase, float]:
        return {"forward_backward": seconds}

    def discard(self, batches: int) -> None:
        raise NotImplementedError("a recording holds steps only")

    def optimizer_step(self) -> None:
        step = next(self.blocks)
        self.log.take(self.clock(), self.clock())
        self.clock.advance(step.seconds)
        self.samples += step.samples
        self.disturbances.update(step.disturbances)
        self.steps_done += 1

    def synchronise(self) -> None:
        pass

    def harvest(self) -> OptimizerSteps:
        new = self.steps_done - self._harvested
        self._harvested = self.steps_done
        return OptimizerSteps(losses=[1.0] * new, samples=[32] * new, skipped=[False] * new)


class _Machine:
    def find_workers(self) -> None:
        pass

    def __init__(self, playback: _Playback) -> None:
        self._playback = playback

    def start(self) -> None:
        self._playback.disturbances.clear()

    def read(self) -> MachineState:
        return _CALM


class RecordedBackend:
    """A backend whose trials are played back on a `Clock`."""

    slots = 1
    remarks: Sequence[str] = ()

    def __init__(self, recording: Recording, clock: Clock, facts: Facts, seed: int) -> None:
        self._recording = recording
        self._clock = clock
        self._facts = facts
        self._random = random.Random(seed)

    def __call__(self, _spec: dict[str, Any], _folder: Path) -> RecordedBackend:
        return self

    def facts(self, deadline_s: float) -> Facts:
        self._clock.advance(5.0)
        return self._facts

    def run(self, request: TrialRequest, *, deadline_s: float, on_event: OnEvent) -> TrialResult:
        outcome = Outcome(asked_at_s=self._clock())

        def report(event: str, payload: dict[str, Any]) -> None:
            outcome.events.append(TrialEvent(event=cast(Any, event), at_s=self._clock(), payload=payload))
            on_event(outcome.events[-1])

        run = self._random.choice(self._recording.runs[recorded_as(request.config)])
        self._clock.advance(run.start_up_s)
        report("started", {})
        playback = _Playback(self._clock, self._from_somewhere(run))

        def judge(_state: MachineState, _seconds: float) -> tuple[Disturbance, ...]:
            return tuple(playback.disturbances)

        measurement = Measurement(playback, playback, request, report, machine=_Machine(playback), judge=judge)
        status = measurement.run()
        assert self._clock() - outcome.asked_at_s <= deadline_s, "no deadline is meant to be met in a recording"
        memory = Memory(resident_bytes=1 << 30, resident_growth_bytes=1 << 28)
        rates = measurement.rates()
        told = {"rates": rates.model_dump(mode="json") if rates else None, "memory": memory.model_dump()}
        report("result", {"status": status, "failure": None, **told})
        outcome.ended_at_s = self._clock()
        return outcome.result(request)

    def close(self) -> None:
        pass

    def _from_somewhere(self, run: RecordedRun) -> Iterator[Block]:
        first = self._random.randrange(len(run.blocks))
        start = Block(steps=1, samples=run.blocks[0].samples, seconds=run.first_step_s, phases={})
        return itertools.chain([start], itertools.islice(itertools.cycle(run.blocks), first, None))


def recorded_as(config: TrainConfig) -> TrainConfig:
    """The recorded configuration that trains like `config`: what feeds the data was not recorded apart."""
    return TrainConfig(
        micro_batch_size=config.micro_batch_size,
        grad_accum_steps=config.grad_accum_steps,
        amp_dtype=config.amp_dtype,
        memory_format=config.memory_format,
    )


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one search found, held against all that was recorded."""

    chosen_over_best: float
    emitted_over_truth: float


def search_recorded(recording: Recording, folder: Path, seed: int) -> Found:
    """Search the recorded space in a folder of its own, within half an hour of the recorded machine's time."""
    (folder / str(seed)).mkdir()
    bench = Bench(folder / str(seed))
    backend = RecordedBackend(recording, bench.clock, cpu_facts(), seed)
    best = bench.search(backend, **_SPEC | {"strategy": {"name": "gp", "seed": seed}}).best
    config = recorded_as(TrainConfig.from_dict(best["config"]))
    return Found(
        chosen_over_best=recording.truth(config) / max(map(recording.truth, recording.runs)),
        emitted_over_truth=best["measured"]["samples_per_s"] / recording.truth(config),
    )
