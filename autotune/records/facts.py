"""Facts about a machine and a workload, found once, before the first trial."""

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
    """Why torch.compile cannot work here; None if it can."""


class HostFacts(Record):
    """The machine around the device."""

    cpu: str
    physical_cores: int
    usable_cores: int
    """CPU cores that one process of a trial may use: its share, if several ranks train together."""
    default_num_threads: int
    """The same for PyTorch's intra-op threads."""
    memory_bytes: int
    shm_bytes: int | None
    """Size of /dev/shm; None if it does not exist."""
    versions: dict[str, str]
    """Versions of autotune, python, torch, timm, cuda, driver, as far as they apply."""


class WorkloadFacts(Record):
    """Facts about a workload, found by building it once."""

    parameters: int
    dataset_samples: int | None
    """None for an iterable data set, whose length is not known."""
    repeats_in_processes: bool = False
    """Whether it is an iterable data set that gives each loader process all of its samples."""
    input_shape: tuple[int, ...] | None
    """Shape of one input sample without the batch dimension; None if a batch contains no tensor."""
    samples: str | None = None
    """Description of a sample that is not a pair of input and target: `dicts: image 3×48×48, label scalar`."""
    activation_checkpointing_refusal: str | None
    """Why the model cannot checkpoint its activations; None if it can."""
    fused_optimizer_refusal: str | None
    batch_norm: bool
    data_folder: str | None = None
    """Folder of the image files; None if there are none."""


class Facts(Record):
    """Everything that the search needs to know before its first trial."""

    device: DeviceFacts
    host: HostFacts
    workload: WorkloadFacts
