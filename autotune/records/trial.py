"""One trial: the request to its process, the reports of the process, and the record that is kept."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from autotune.records.base import Config, Record
from autotune.records.facts import Facts
from autotune.records.rates import Rates, Side, SideRate, SlowBatches


class TrialStatus(StrEnum):
    OK = "ok"
    PRUNED = "pruned"
    """Stopped early because it could no longer win; its blocks are a valid but noisy measurement."""
    OOM = "oom"
    """Out of memory, on the device or the host (death by signal 9 included: the kernel's OOM killer sends it)."""
    DIVERGED = "diverged"
    """A loss was not finite."""
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    """The process ended without a result: a signal, `os._exit`."""
    FAILED = "failed"
    """The workload raised."""

    @property
    def bracketed(self) -> str:
        """` (oom)`, for use after "fails"; empty if it adds nothing."""
        return "" if self is TrialStatus.FAILED else f" ({self})"


class TrialRequest(Record):
    """One trial to run. The workload is part of the spec, which the trial's process already has."""

    config: Config
    seed: int
    time_limit_s: float
    """Time for warm-up and timed steps, after the first one. The trial ends after the block in which it runs out."""
    target_relative_error: float = 0.02
    """The trial may end early once the relative standard error of its throughput is below this."""
    hopeless_below: float | None = None
    """Samples per second: the trial ends early once the upper end of its interval is below this; None: never."""
    data_was_read: bool = False
    """Whether earlier trials have read the whole data set: files are then not colder in the first epoch than later."""
    slow_batches: SlowBatches = SlowBatches()
    """Slow batches in earlier trials with the same batch size, because a short trial sees very few."""
    batches_without_slow: int = 0
    """Batches of any size that earlier trials have loaded, if none of them was slow; else 0."""
    waits_s: float = 0.0
    """If other work disturbs blocks, the trial goes on until two blocks are undisturbed, or until disturbed blocks took
    so many seconds; 0 if the machine is usually busy."""
    min_blocks: int = 3
    max_blocks: int = 400
    min_steps: int = 0
    """Optimizer steps, warm-up included, before the trial may end; for a soak."""
    ends_after_s: float | None = None
    """Seconds after the first step at which the trial ends, even before `min_steps`; None: no limit."""
    max_steps: int | None = None
    """Optimizer steps, warm-up included, after which the trial ends; for runs whose losses are compared."""
    in_any_process: bool = False
    """Whether it may run in a process that has run other trials before; otherwise it gets a new one."""
    watch_training: bool = False
    """Watch gradients of every step and activations, for the stability gates. Slows the steps down."""
    side: Side | None = None
    """Measure only this side; None: train, with both sides. Only for training in one process."""


StepPhase = Literal["data_wait", "copy", "forward_backward", "optimizer"]
"""Phases of a step. On an accelerator they are measured by its own clock: `data_wait` is its idle time between the work
of two steps, without the host's waiting that its work hides."""


class MachineState(Record):
    """What the machine did during one block in addition to training; None for what cannot be known here."""

    outside_load: float | None = None
    """CPU cores kept busy by everything except this trial's processes, the hypervisor's share (steal) included."""
    own_load: float | None = None
    """CPU cores kept busy by this trial's own processes, its DataLoader's workers included."""
    loader_load: float | None = None
    """The part of it that the DataLoader's workers keep busy; None if ranks train together."""
    cores: int | None = None
    """Number of cores on which the two were counted."""
    available_memory_bytes: int
    """Host memory that is still available at the end of the block."""
    shm_free_bytes: int | None = None
    """Free space in /dev/shm, through which loader processes pass their batches."""
    resident_bytes: int
    """Resident memory of the trial's process at the end of the block."""
    loader_bytes: int | None = None
    """Additional memory of the DataLoader's processes, without the pages that they share with the trial's process; None
    if there are none, or if ranks train together."""
    device_allocated_bytes: int | None = None
    allocator_retries: int | None = None
    """Since the trial began: how often cudaMalloc failed and torch freed cached blocks to try again."""
    sm_clock_mhz: int | None = None
    power_w: float | None = None
    temperature_c: int | None = None
    throttle_reasons: tuple[str, ...] = ()
    """Names as in NVML."""
    other_device_processes: int | None = None
    energy_j: float | None = None
    """Energy that the whole device used during the block."""


Disturbance = Literal["contended", "throttled"]


class Block(Record):
    """A timed series of whole optimizer steps, synchronised only at its two edges."""

    steps: int
    samples: int
    seconds: float
    phases: dict[StepPhase, float]
    """Seconds of each phase; they add up to `seconds`."""
    machine: MachineState | None = None
    disturbances: tuple[Disturbance, ...] = ()
    """What kept the machine busy with other work, or slowed it down, while this block ran."""


class WarmUp(Record):
    """The steps before the first block, which are not measured."""

    steps: int
    seconds: float
    first_step_s: float
    """The first optimizer step, with compilation and all other one-time costs."""
    first_wait_s: float = 0.0
    """The part of it that was waiting for data; 0 in records from before 2026-11-28."""
    settled: bool
    """False if the time limit ended the warm-up before the step time had settled."""


class Memory(Record):
    """Peak memory in bytes over all steps, warm-up included."""

    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    """On an accelerator: memory that torch's allocator reserved on the device."""
    resident_bytes: int
    """Peak resident set of the trial's process, without its DataLoader workers."""
    resident_growth_bytes: int
    """Its growth after the imports: model, optimizer, activations, data."""
    loader_bytes: int | None = None
    """Most additional memory of the DataLoader's processes at the end of a block."""

    @property
    def peak_bytes(self) -> int:
        """The value to compare: reserved memory on an accelerator; on CPU the growth of the resident set plus the
        memory of the loader's processes."""
        if self.reserved_bytes is not None:
            return self.reserved_bytes
        return self.resident_growth_bytes + (self.loader_bytes or 0)


class OptimizerSteps(Record):
    """Results of every optimizer step, in order, warm-up included. All lists have one entry per step."""

    losses: list[float]
    samples: list[int]
    skipped: list[bool]
    """True where the GradScaler skipped the update."""
    loss_scales: list[float] = Field(default_factory=list)
    """The GradScaler's scale after each step; empty without a GradScaler."""
    gradient_norms: list[float] = Field(default_factory=list)
    """Norm of the unscaled gradient before clipping, of each step; empty unless the request watches the training."""

    @model_validator(mode="after")
    def _one_entry_a_step(self) -> Self:
        if not len(self.losses) == len(self.samples) == len(self.skipped):
            raise ValueError("must have as many losses as samples and skipped")
        return self


class FirstGradient(Record):
    """A summary of the gradient of the first optimizer step, for comparing two runs from the same weights."""

    sketch: list[float]
    """A count sketch of the whole gradient: the cosine of two sketches is nearly the cosine of the gradients."""
    norm: float
    zero_share: float
    """Share of its elements that are exactly zero."""


class LargestActivation(Record):
    """The largest absolute value that any module returned in the watched optimizer steps."""

    value: float
    module: str
    """The module's name in the model; empty for the model itself."""


class Failure(Record):
    """Why a trial has no result."""

    reason: str
    """One line for people."""
    section: str | None = None
    """The section of the spec whose code failed, such as `training.loss`; None if unknown."""
    traceback: str = ""
    exit_code: int | None = None
    signal: int | None = None
    """The signal that ended one of its processes."""


class Rank(Record):
    """One of several processes that trained one model together."""

    rank: int
    device: str
    own_step_s: float | None = None
    """Mean seconds of an optimizer step until its last exchange of gradients can begin: the others wait for that."""
    step_s: float | None = None
    """Mean seconds of the whole step."""
    peak_memory_bytes: int


class TrialResult(Record):
    """Everything that one trial measured, as stored in `trials/NNNN.json`."""

    config: Config
    status: TrialStatus
    seed: int
    blocks: tuple[Block, ...] = ()
    warm_up: WarmUp | None = None
    rates: Rates | None = None
    """None if the run ended before it could measure them, for one side, and in records from before 2026-11-28."""
    side: Side | None = None
    """The one side that was measured; None: both, in a run that trained as a user does."""
    side_rate: SideRate | None = None
    """Rate of that side alone; None if the run failed, and without `side`."""
    steps: OptimizerSteps | None = None
    first_gradient: FirstGradient | None = None
    largest_activation: LargestActivation | None = None
    memory: Memory | None = None
    start_up_s: float | None = None
    """From the request to the start of the first training step."""
    wall_s: float
    """From the request to the end of the process, or until it is ready for another one."""
    process: str | None = None
    """The process that it ran in; None if the process ran only this trial."""
    runs_before: int = 0
    """Number of runs of this process before this one."""
    failure: Failure | None = None
    mean_of_means: bool = False
    """Whether micro-batches of different shapes were accumulated with a loss that is the mean over each of them."""
    unreadable_samples: tuple[str, ...] = ()
    """Files that could not be decoded and were replaced by another sample."""
    ranks: tuple[Rank, ...] = ()
    """The ranks of a trial with several. Blocks, losses and samples cover all ranks together; memory is the largest."""
    node: str | None = None
    """The node of the cluster; None on the local machine."""
    seconds_times: float | None = None
    """Factor by which seconds in blocks and warm-up were multiplied to correct for an uneven node; None: no
    correction."""
    output_tail: str = ""
    """The end of what the process printed."""

    @property
    def slowest_rank(self) -> Rank | None:
        """The rank that the others wait for; None if that is not known, or if there is only one."""
        timed = [rank for rank in self.ranks if rank.own_step_s is not None]
        return max(timed, key=lambda rank: rank.own_step_s or 0.0) if len(timed) > 1 else None

    @property
    def training_s(self) -> float:
        """Seconds inside warm-up or timed training steps."""
        return (self.warm_up.seconds if self.warm_up else 0.0) + sum(block.seconds for block in self.blocks)


class TrialEvent(Record):
    """One line from a trial's process to the controller, while it runs."""

    event: Literal["started", "warm", "block", "facts", "result", "cleared", "problem"]
    at_s: float
    """`time.monotonic()` of the machine, comparable across its processes."""
    payload: dict[str, Any] = Field(default_factory=dict)


class Purpose(StrEnum):
    """Why a trial was run."""

    BASELINE = "baseline"
    SEED = "seed"
    SEARCH = "search"
    REPEAT = "repeat"
    """The baseline again, right after its trial: how much two runs of one configuration differ."""
    CONFIRM = "confirm"
    REFERENCE = "reference"
    """A run with reference numerics (fp32), with which the stability gates compare."""
    PROBE = "probe"
    """A finalist, watched for that comparison."""
    SOAK = "soak"
    VERIFY = "verify"
    SIDE = "side"
    """One side alone, the step or the loader: the search learns from it, but it is not the throughput of a
    configuration."""
    ABLATE = "ablate"
    """A cell of an ablation."""


SEARCHING = (Purpose.BASELINE, Purpose.SEED, Purpose.SEARCH)
"""Purposes of trials of the search itself; all others confirm or test what it found."""
ALIKE = (*SEARCHING, Purpose.REPEAT, Purpose.CONFIRM)
"""Runs of one configuration with these purposes differ only by noise; watched runs are slower."""


class Predicted(Record):
    """What the strategy expected of a trial, with its 95 % interval for one run."""

    samples_per_s: float
    low: float
    high: float


class TrialRecord(Record):
    """`trials/NNNN.json`: one trial, and its place in the study."""

    number: int
    purpose: Purpose
    round: int | None = None
    """The interleaved round of confirmation that it belongs to."""
    optuna_trial: int | None = None
    """Number of the Optuna trial; None for runs that only confirm."""
    predicted: Predicted | None = None
    """None if the strategy predicted nothing."""
    elapsed_s: float
    """Budget spent when it ended."""
    cut_short: bool = False
    """Killed because its share of the budget was over, not because it was slow. This says nothing about the
    configuration."""
    started: str
    """UTC, ISO 8601."""
    result: TrialResult
    environment: Facts
