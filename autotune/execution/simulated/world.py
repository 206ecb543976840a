"""A world: what each configuration does on one machine, in seconds and bytes, and how noisy that machine is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from autotune.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What makes two runs of one configuration differ. The truth contains only `step` and `fetch` of it."""

    between: float = 0.0
    """Standard deviation of the logarithm of a process's speed."""
    step: float = 0.0
    """Relative standard deviation of a step's seconds inside a process."""
    fetch: float = 0.0
    """Relative standard deviation of the seconds that loading one sample takes; those of a micro-batch add up."""
    outlier_share: float = 0.0
    """Share of the processes that are slow outliers."""
    outlier_slows: float = 1.0
    drift: float = 0.0
    """Amplitude of the logarithm of the machine's speed, which swings once in `drift_period_s`."""
    drift_period_s: float = 300.0
    burst_every_s: float = math.inf
    """Mean seconds from the end of one burst of other work to the next."""
    burst_s: float = 1.0
    """Mean length."""
    burst_cores: float = 1.0
    burst_unseen: float = 0.0
    """Share of the bursts that the machine's counters do not show, such as those of a neighbour on the same
    hypervisor."""

    @property
    def of_a_process(self) -> float:
        """Standard deviation of the logarithm of a process's speed, outliers and drift included, bursts left out."""
        outliers = self.outlier_share * (1 - self.outlier_share) * math.log(self.outlier_slows) ** 2
        return math.sqrt(self.between**2 + outliers + self.drift**2 / 2)


@dataclass(frozen=True, kw_only=True)
class Hardware:
    name: str
    device: Literal["cpu", "cuda"]
    cores: int
    memory_bytes: int
    """Device memory."""
    start_s: float
    """From the request to the first training step."""
    first_step_s: float
    """Extra seconds of the first step in a new process: context, kernels, convolution algorithms."""
    next_start_s: float
    """From the request to the first training step in a process that has run others: the model, the loader."""
    next_first_step_s: float
    """Extra seconds of the first step in such a process."""
    fork_s: float
    """Seconds from the request until the first batch is being loaded, in a new process without device and model."""
    worker_start_s: float
    """Seconds in which the training process starts one loader process."""
    epoch_restart_s: float
    """Seconds that `iter(loader)` takes between epochs."""
    noise: Noise

    @property
    def asynchronous(self) -> bool:
        """Whether the host only queues work on the device."""
        return self.device == "cuda"


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of forward and backward of one micro-batch, and of the optimizer."""

    sample_s: float
    """In fp32, contiguous."""
    fixed_s: float = 0.0
    optimizer_s: float = 0.0
    amp: float = 0.6
    """Factor on the seconds in bf16."""
    channels_last: float = 0.8
    """Factor in bf16; in fp32 there is no gain."""
    copy_s: float = 0.0
    """Seconds to copy a sample to the device from memory that is not pinned; pinned memory needs half of it."""
    host_s: float = 0.0
    """CPU seconds in which the host queues one micro-batch on an asynchronous device."""

    def compute_s(self, config: TrainConfig) -> float:
        sample_s = self.sample_s
        if config.amp_dtype != "none":
            sample_s *= self.amp * (self.channels_last if config.memory_format == "channels_last" else 1.0)
        return self.fixed_s + sample_s * config.micro_batch_size

    def transfer_s(self, config: TrainConfig) -> float:
        return self.copy_s * config.micro_batch_size * (0.5 if config.pin_memory else 1.0)


@dataclass(frozen=True, kw_only=True)
class World:
    name: str
    hardware: Hardware
    step: StepTime
    sample_wait_s: float
    """Seconds that one process waits for one sample: for a disk, a network, a lock."""
    sample_cpu_s: float
    """CPU seconds that it computes for one sample."""
    samples: int
    """Size of the data set."""
    budget: str
    search: tuple[tuple[str, object], ...]
    """The spec's section, as key and value."""
    baseline: tuple[tuple[str, object], ...]
    effective_batch_size: int
    slow_every: int = 0
    """One micro-batch in so many takes `slow_times` as long to load; 0: none."""
    slow_times: float = 1.0
    cold_times: float = 1.0
    """Factor on the waiting for each sample until the machine has read as many samples as the data set has. Then its
    page cache is warm, for later processes too."""
    sample_memory_bytes: int = 0
    """Peak memory for each sample of a micro-batch in fp32."""

    def memory_bytes(self, config: TrainConfig) -> int:
        per_sample = self.sample_memory_bytes * (0.6 if config.amp_dtype != "none" else 1.0)
        return int(per_sample * config.micro_batch_size)

    def epoch_batches(self, config: TrainConfig) -> int:
        return self.samples // config.micro_batch_size

    @property
    def is_noisy(self) -> bool:
        """Whether runs differ by more than 3 %."""
        return self.hardware.noise.of_a_process > 0.03 or math.isfinite(self.hardware.noise.burst_every_s)
