"""One trial: what is asked of its process, what the process reports, and what is kept of it."""

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
    """Stopped early because it could no longer win; its blocks are a valid, if noisy, measurement."""
    OOM = "oom"
    """Out of memory, on the device or the host (death by signal 9 included: the kernel's OOM killer sends it)."""
    DIVERGED = "diverged"
    """A loss that is not finite."""
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    """The process ended without a result: a signal, `os._exit`."""
    FAILED = "failed"
    """The workload raised."""

    @property
    def bracketed(self) -> str:
        """` (oom)`, to follow on a "fails"; empty where there is nothing to add."""
        return "" if self is TrialStatus.FAILED else f" ({self})"


class TrialRequest(Record):
    """One trial to run. The workload itself is the spec's, which the trial's process already has."""

    config: Config
    seed: int
    time_limit_s: float
    """Time for warm-up and timed steps, after the first one. The trial ends after the block in which it runs out."""
    target_relative_error: float = 0.02
    """The trial may end early once the relative standard error of its throughput is below this."""
    hopeless_below: float | None = None
    """Samples per second: the trial ends early once the upper end of its interval is below; None: it never does."""
    data_was_read: bool = False
    """Whether earlier trials have read all of the data set: files of a first epoch are then no colder than later."""
    slow_batches: SlowBatches = SlowBatches()
    """What earlier trials with batches of the same size have seen of slow ones: a short one sees hardly any."""
    batches_without_slow: int = 0
    """Batches of any size that earlier trials have loaded, none of which was slow; 0 where one was."""
    waits_s: float = 0.0
    """Seconds of blocks that other work disturbs, up to which the trial goes on until two were free of it; 0 where the
    machine is usually busy."""
    min_blocks: int = 3
    max_blocks: int = 400
    min_steps: int = 0
    """Optimizer steps, warm-up included, before the trial may end: what a soak asks for."""
    ends_after_s: float | None = None
    """Seconds after the first step with which the trial ends, even before `min_steps`; None: no such end."""
    max_steps: int | None = None
    """Optimizer steps, warm-up included, with which the trial ends: runs whose losses are compared."""
    in_any_process: bool = False
    """Whether it may run in a process that has run other trials before; where not, it has a new one."""
    watch_training: bool = False
    """Look at every step's gradients and at the activations, for the stability gates. Slows the steps down."""
    side: Side | None = None
    """Measure that side alone; None: train, with both. Of one process's training only."""


StepPhase = Literal["data_wait", "copy", "forward_backward", "optimizer"]
"""Where the time of a step goes. On an accelerator by its own clock: `data_wait` is then what it idled between one
step's work and the next, the host's waiting that was hidden behind its work left out."""


class MachineState(Record):
    """What the machine did during one block, beside training; None where it cannot be known here."""

    outside_load: float | None = None
    """CPU cores kept busy by anything but this trial's own processes, the hypervisor's share (steal) included."""
    own_load: float | None = None
    """CPU cores kept busy by this trial's own processes, its DataLoader's workers included."""
    loader_load: float | None = None
    """The part of it that the DataLoader's workers keep busy; None where ranks train together."""
    cores: int | None = None
    """On which the two were counted."""
    available_memory_bytes: int
    """Host memory that could still be had, at the block's end."""
    shm_free_bytes: int | None = None
    """Room left in /dev/shm, through which loader processes hand over their batches."""
    resident_bytes: int
    """Resident memory of the trial's process at the end of the block."""
    loader_bytes: int | None = None
    """What the DataLoader's processes hold beside that, without what they share with it; None where there are none, or
    ranks train together."""
    device_allocated_bytes: int | None = None
    allocator_retries: int | None = None
    """Since the trial began: cudaMalloc failed, and torch gave cached blocks back to try again."""
    sm_clock_mhz: int | None = None
    power_w: float | None = None
    temperature_c: int | None = None
    throttle_reasons: tuple[str, ...] = ()
    """As NVML names them."""
    other_device_processes: int | None = None
    energy_j: float | None = None
    """Drawn by the whole device during the block."""


Disturbance = Literal["contended", "throttled"]


class Block(Record):
    """A timed run of whole optimizer steps, synchronised at its two edges only."""

    steps: int
    samples: int
    seconds: float
    phases: dict[StepPhase, float]
    """Seconds of each phase; they add up to `seconds`."""
    machine: MachineState | None = None
    disturbances: tuple[Disturbance, ...] = ()
    """What else kept the machine busy, or slowed it down, while this block ran."""


class WarmUp(Record):
    """What was discarded before the first block."""

    steps: int
    seconds: float
    first_step_s: float
    """Compilation and every other one-off cost of the first optimizer step."""
    first_wait_s: float = 0.0
    """The part of it that it waited for data; 0 in records from before 2026-11-28."""
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
    loader_bytes: int | None = None
    """The most that the DataLoader's processes held beside that, at the end of a block."""

    @property
    def peak_bytes(self) -> int:
        """The figure to compare: reserved on an accelerator; on CPU the growth of the resident set, and what the
        loader's processes held."""
        if self.reserved_bytes is not None:
            return self.reserved_bytes
        return self.resident_growth_bytes + (self.loader_bytes or 0)


class OptimizerSteps(Record):
    """What every optimizer step said, in order, warm-up included. All lists have one entry a step."""

    losses: list[float]
    samples: list[int]
    skipped: list[bool]
    """True where the GradScaler skipped the update."""
    loss_scales: list[float] = Field(default_factory=list)
    """The GradScaler's scale after each step; empty without one."""
    gradient_norms: list[float] = Field(default_factory=list)
    """Norm of the unscaled gradient before clipping, of each step; empty unless the request watches the training."""

    @model_validator(mode="after")
    def _one_entry_a_step(self) -> Self:
        if not len(self.losses) == len(self.samples) == len(self.skipped):
            raise ValueError("must have as many losses as samples and skipped")
        return self


class FirstGradient(Record):
    """The gradient of the first optimizer step, condensed: what two runs from the same weights can be compared by."""

    sketch: list[float]
    """A count sketch of the whole gradient: sketches of two gradients have nearly the same cosine as the gradients."""
    norm: float
    zero_share: float
    """Share of its elements that are exactly zero."""


class LargestActivation(Record):
    """The largest absolute value that any module put out in the optimizer steps that were looked at."""

    value: float
    module: str
    """Its name in the model; empty for the model itself."""


class Failure(Record):
    """Why a trial has no result."""

    reason: str
    """One line for people."""
    section: str | None = None
    """The section of the spec that names the user's code which failed, `training.loss`; None where it is unknown."""
    traceback: str = ""
    exit_code: int | None = None
    signal: int | None = None
    """That ended one of its processes."""


class Rank(Record):
    """One of several processes that trained one model together."""

    rank: int
    device: str
    own_step_s: float | None = None
    """Mean seconds of an optimizer step before its last exchange of gradients can begin: what the others wait for."""
    step_s: float | None = None
    """Mean seconds of the whole step."""
    peak_memory_bytes: int


class TrialResult(Record):
    """Everything one trial saw, as `trials/NNNN.json` keeps it."""

    config: Config
    status: TrialStatus
    seed: int
    blocks: tuple[Block, ...] = ()
    warm_up: WarmUp | None = None
    rates: Rates | None = None
    """None where the run ended before it could measure them, in records from before 2026-11-28, and of one side."""
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
    """Which process it ran in; None if that was a process of its own."""
    runs_before: int = 0
    """That this process had run before."""
    failure: Failure | None = None
    mean_of_means: bool = False
    """Whether micro-batches of different shapes were accumulated with a loss that is the mean over each of them."""
    unreadable_samples: tuple[str, ...] = ()
    """Files that could not be decoded and were replaced by another sample."""
    ranks: tuple[Rank, ...] = ()
    """Ranks of a trial of several. Blocks, losses and samples are those of all together, memory is the largest."""
    node: str | None = None
    """Node of the cluster; None on the user's own machine."""
    seconds_times: float | None = None
    """What the seconds in blocks and warm-up were multiplied by, to make up for an uneven node; None: nothing."""
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
    """Plain arithmetic, for the stability gates to compare with."""
    PROBE = "probe"
    """A finalist, watched for the same comparison."""
    SOAK = "soak"
    VERIFY = "verify"
    SIDE = "side"
    """One side alone, the step or the loader: the search learns from it, and it is no configuration's figure."""
    ABLATE = "ablate"
    """A cell of a factorial."""


SEARCHING = (Purpose.BASELINE, Purpose.SEED, Purpose.SEARCH)
"""Why a trial was run that belongs to the search itself; all others confirm or test what it found."""
ALIKE = (*SEARCHING, Purpose.REPEAT, Purpose.CONFIRM)
"""Runs of one configuration that differ by noise alone: a watched one is slower."""


class Predicted(Record):
    """What the strategy expected of a trial, with its 95 % interval for one run."""

    samples_per_s: float
    low: float
    high: float


class TrialRecord(Record):
    """`trials/NNNN.json`: one trial, and where it stands in the study."""

    number: int
    purpose: Purpose
    round: int | None = None
    """Which interleaved round of the confirmation it belongs to."""
    optuna_trial: int | None = None
    """Number of the Optuna trial; None for runs that only confirm."""
    predicted: Predicted | None = None
    """None where the strategy predicts nothing."""
    elapsed_s: float
    """Budget spent when it ended."""
    cut_short: bool = False
    """Killed because its share of the budget was over, not for being slow: says nothing about the configuration."""
    started: str
    """UTC, ISO 8601."""
    result: TrialResult
    environment: Facts
