"""One trial: what is asked of its process, what the process reports, and what is kept of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from autotune.config import TrainConfig
from autotune.records.base import Record
from autotune.records.facts import Facts


class TrialStatus(StrEnum):
    OK = "ok"
    OOM = "oom"
    """Out of memory, on the device or the host (death by signal 9 included: the kernel's OOM killer sends it)."""
    DIVERGED = "diverged"
    """A loss that is not finite."""
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    """The process ended without a result: a signal, `os._exit`."""
    FAILED = "failed"
    """The workload raised."""


class TrialRequest(Record):
    """One trial to run. The workload itself is the spec's, which the trial's process already has."""

    config: TrainConfig
    seed: int
    time_limit_s: float
    """Of warm-up and timed steps, after the first one; the trial ends itself after the block in which it is spent."""
    target_relative_error: float = 0.02
    """The trial may end early once the relative standard error of its throughput is below this."""
    min_blocks: int = 3
    max_blocks: int = 400
    min_steps: int = 0
    """Optimizer steps, warm-up included, before the trial may end: what a soak asks for."""


class Block(Record):
    """A timed run of whole optimizer steps, synchronised at its two edges only."""

    steps: int
    samples: int
    seconds: float
    data_wait_s: float
    """Host time spent waiting for the next batch."""


class WarmUp(Record):
    """What was discarded before the first block."""

    steps: int
    seconds: float
    first_step_s: float
    """Compilation and every other one-off cost of the first optimizer step."""
    settled: bool
    """False when the time limit ended the warm-up before the step time had settled."""


class Memory(Record):
    """Peak memory in bytes over all steps, warm-up included."""

    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    """On an accelerator: what torch's allocator took from the device."""
    resident_bytes: int
    """Peak resident set of the trial's process, without its DataLoader workers."""
    resident_growth_bytes: int
    """The part of it that came after the imports: model, optimizer, activations, data."""

    @property
    def peak_bytes(self) -> int:
        """The figure to compare: reserved on an accelerator, growth of the resident set on CPU."""
        return self.resident_growth_bytes if self.reserved_bytes is None else self.reserved_bytes


class OptimizerSteps(Record):
    """What every optimizer step said, in order, warm-up included. All three lists have one entry a step."""

    losses: list[float]
    samples: list[int]
    skipped: list[bool]
    """True where the GradScaler skipped the update."""


class Failure(Record):
    """Why a trial has no result."""

    reason: str
    """One line for people."""
    traceback: str = ""
    exit_code: int | None = None
    signal: int | None = None


class TrialResult(Record):
    """Everything one trial saw, as `trials/NNNN.json` keeps it."""

    config: TrainConfig
    status: TrialStatus
    seed: int
    blocks: tuple[Block, ...] = ()
    warm_up: WarmUp | None = None
    steps: OptimizerSteps | None = None
    memory: Memory | None = None
    start_up_s: float | None = None
    """From the request to the start of the first training step."""
    wall_s: float
    """From the request to the end of the process."""
    failure: Failure | None = None
    unreadable_samples: tuple[str, ...] = ()
    """Files that could not be decoded and were replaced by another sample."""
    output_tail: str = ""
    """The end of what the process printed."""

    @property
    def training_s(self) -> float:
        """Seconds inside warm-up or timed training steps."""
        return (self.warm_up.seconds if self.warm_up else 0.0) + sum(block.seconds for block in self.blocks)


class TrialEvent(Record):
    """One line from a trial's process to the controller, while it runs."""

    event: Literal["started", "warm", "block", "facts", "result", "problem"]
    at_s: float
    """`time.monotonic()` of the machine, comparable across its processes."""
    payload: dict[str, Any] = Field(default_factory=dict)


class Purpose(StrEnum):
    """Why a trial was run."""

    BASELINE = "baseline"
    SEED = "seed"
    SEARCH = "search"
    CONFIRM = "confirm"
    SOAK = "soak"


class TrialRecord(Record):
    """`trials/NNNN.json`: one trial, and where it stands in the study."""

    number: int
    purpose: Purpose
    round: int | None = None
    """Which interleaved round of the confirmation it belongs to."""
    optuna_trial: int | None = None
    """Number of the Optuna trial; None for runs that only confirm."""
    elapsed_s: float
    """Budget spent when it ended."""
    cut_short: bool = False
    """Killed because its share of the budget was over, not for being slow: says nothing about the configuration."""
    started: str
    """UTC, ISO 8601."""
    result: TrialResult
    environment: Facts
