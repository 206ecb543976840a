"""A recorded space: the measurements of every configuration, run by run, as `autotune sweep` writes them."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

from autotune.best_yaml import StudyName
from autotune.config import TrainConfig
from autotune.records.base import Config, Record
from autotune.records.facts import Facts
from autotune.records.rates import Rates
from autotune.records.trial import Block, Disturbance, Memory, TrialResult, TrialStatus, WarmUp


class BlockRow(NamedTuple):
    """A timed block as one row, because a file may contain hundreds of thousands; phases are in seconds."""

    steps: int
    samples: int
    seconds: float
    data_wait_s: float
    copy_s: float
    forward_backward_s: float
    optimizer_s: float
    disturbances: tuple[Disturbance, ...]

    @classmethod
    def of(cls, block: Block) -> BlockRow:
        phases = block.phases
        return cls(
            block.steps,
            block.samples,
            _short(block.seconds),
            _short(phases.get("data_wait", 0.0)),
            _short(phases.get("copy", 0.0)),
            _short(phases.get("forward_backward", 0.0)),
            _short(phases.get("optimizer", 0.0)),
            block.disturbances,
        )

    def block(self) -> Block:
        return Block.model_construct(
            steps=self.steps,
            samples=self.samples,
            seconds=self.seconds,
            phases={
                "data_wait": self.data_wait_s,
                "copy": self.copy_s,
                "forward_backward": self.forward_backward_s,
                "optimizer": self.optimizer_s,
            },
            machine=None,
            disturbances=self.disturbances,
        )


class RecordedRun(Record):
    """The run of one configuration in one process."""

    config: Config
    repeat: int
    """0 for the first process of this configuration, 1 for the second, …"""
    seed: int
    status: TrialStatus
    samples_per_s: float | None
    """Sustained samples per second; None if the run measured nothing."""
    blocks: tuple[BlockRow, ...] = ()
    warm_up: WarmUp | None = None
    rates: Rates | None = None
    """None in tables from before 2026-11-28."""
    start_up_s: float | None = None
    wall_s: float
    """From the request to the end of the process: the cost of this trial."""
    memory: Memory | None = None
    failure: str = ""
    started: str
    """UTC, ISO 8601."""
    again: bool = False
    """Whether it replaces a run that was disturbed most of the time; it is kept even if it was disturbed too."""

    @classmethod
    def of(
        cls, result: TrialResult, *, repeat: int, samples_per_s: float | None, started: str, again: bool = False
    ) -> RecordedRun:
        return cls(
            config=result.config,
            repeat=repeat,
            seed=result.seed,
            status=result.status,
            samples_per_s=samples_per_s,
            blocks=tuple(map(BlockRow.of, result.blocks)),
            warm_up=result.warm_up,
            rates=result.rates,
            start_up_s=result.start_up_s,
            wall_s=result.wall_s,
            memory=result.memory,
            failure=result.failure.reason if result.failure else "",
            started=started,
            again=again,
        )

    @property
    def disturbed_share(self) -> float:
        """Share of the timed seconds that were disturbed."""
        whole = math.fsum(row.seconds for row in self.blocks)
        return math.fsum(row.seconds for row in self.blocks if row.disturbances) / whole if whole else 0.0


class Table(Record):
    """All configurations of a space, or a sample of them, measured on one machine."""

    format: Literal[1] = 1
    name: StudyName
    created: str
    """Start of the first run (UTC, ISO 8601)."""
    command: str
    spec: dict[str, Any]
    """The resolved spec, from which the space can be rebuilt."""
    facts: Facts
    """The machine and the workload."""
    trial_s: float
    """Seconds for warm-up and timed steps of each run."""
    planned: int
    """Number of configurations to measure, out of `size` in the space."""
    size: int | None
    """None: too many to count."""
    sample: int | None = None
    """How many configurations were asked for, and the seed of their choice and order; None: all."""
    seed: int = 0
    repeats: int
    """Processes for each configuration; one that fails is not run again."""
    runs: tuple[RecordedRun, ...]

    def by_config(self) -> dict[TrainConfig, list[RecordedRun]]:
        runs: dict[TrainConfig, list[RecordedRun]] = {}
        for run in self.runs:
            runs.setdefault(run.config, []).append(run)
        return runs


def _short(seconds: float) -> float:
    """Rounded to 10 µs, the error of clock and synchronisation."""
    return round(seconds, 5)
