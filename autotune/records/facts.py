"""What a machine offers and what a workload is: found out once, before the first trial."""

from __future__ import annotations

from typing import Literal

from autotune.records.base import Record


class DeviceFacts(Record):
    """What one device offers, as torch reports it. `kind` is torch's device type."""

    kind: Literal["cpu", "cuda", "mps", "xpu"]
    index: int | None = None
    name: str
    total_memory_bytes: int
    compute_capability: tuple[int, int] | None = None
    amp_dtypes: tuple[str, ...]
    """Dtypes whose autocast this device runs natively, of `bf16` and `fp16`."""
    compile_refusal: str | None = None
    """Why torch.compile cannot work here; None when it can."""


class HostFacts(Record):
    """The machine around the device."""

    cpu: str
    physical_cores: int
    usable_cores: int
    """By one process of a trial: its share, where several ranks train together."""
    default_num_threads: int
    """The same of PyTorch's intra-op threads."""
    memory_bytes: int
    shm_bytes: int | None
    """Size of /dev/shm; None where there is none."""
    versions: dict[str, str]
    """Versions of autotune, python, torch, timm, cuda, driver, as far as they apply."""


class WorkloadFacts(Record):
    """What a workload is, found out by building it once."""

    parameters: int
    dataset_samples: int | None
    """None for an iterable data set, whose length is not known."""
    repeats_in_processes: bool = False
    """Whether it is an iterable data set that gives each loader process all of its samples."""
    input_shape: tuple[int, ...] | None
    """Shape of one input sample without the batch dimension; None where a batch holds no tensor."""
    samples: str | None = None
    """What a sample is, where it is not an input and its target: `dicts: image 3×48×48, label scalar`."""
    activation_checkpointing_refusal: str | None
    """Why the model cannot checkpoint its activations; None when it can."""
    fused_optimizer_refusal: str | None
    batch_norm: bool
    data_folder: str | None = None
    """Where the image files lie; None where there are none."""


class Facts(Record):
    """All that the search needs to know before its first trial."""

    device: DeviceFacts
    host: HostFacts
    workload: WorkloadFacts
