"""`TrainConfig`: one point of the search space, and what a user's training code loads."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_type_hints

from annotated_types import Interval

if TYPE_CHECKING:
    from pydantic import BaseModel

AmpDtype = Literal["none", "bf16", "fp16"]
MemoryFormat = Literal["contiguous", "channels_last"]
CompileMode = Literal["none", "default", "reduce-overhead", "max-autotune"]
Fp32Precision = Literal["ieee", "tf32"]
DataParallel = Literal["ddp", "fsdp"]
KnobValue = int | float | str | bool | None
_CUSTOM, _WORLD_SIZE = "custom", "world_size"
_MOST = 2**31 - 1
"""The largest number that the C code behind the settings accepts."""
Count = Annotated[int, Interval(ge=1, le=_MOST)]
CountOrZero = Annotated[int, Interval(ge=0, le=_MOST)]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How to train: every knob with its value. The defaults are what an untuned PyTorch user gets.

    Frozen and hashable: two configurations are the same trial exactly when they are equal. `None` means that PyTorch's
    own default is left alone.
    """

    micro_batch_size: Count = 32
    """Samples per forward and backward pass on one device."""
    grad_accum_steps: Count = 1
    """Micro-batches per optimizer step."""
    amp_dtype: AmpDtype = "none"
    pin_memory: bool = False
    num_workers: CountOrZero = 0
    prefetch_factor: Count | None = None
    """Batches that each worker loads ahead; None without workers."""
    memory_format: MemoryFormat = "contiguous"
    compile: CompileMode = "none"
    fp32_precision: Fp32Precision | None = None
    fused_optimizer: bool = False
    activation_checkpointing: bool = False
    num_threads: Count | None = None
    """Intra-op threads of one process, CPU only."""
    data_parallel: DataParallel | None = None
    """How several processes train one model: DistributedDataParallel, or FSDP2's `fully_shard`. None for one
    process."""
    bucket_cap_mb: Count | None = None
    """MiB of gradients that DDP exchanges at a time."""
    gradient_as_bucket_view: bool | None = None
    """Whether DDP's gradients are views into the buffers that are exchanged, instead of separate copies."""
    static_graph: bool | None = None
    """Whether DDP may rely on every step using the same parameters."""
    world_size: Count = 1
    """Processes that train one model together, each on its own device. Not a knob: the spec sets it."""
    custom: tuple[tuple[str, KnobValue], ...] = ()
    """Knobs that the spec itself defines (`search.custom`), with their values; by name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, _CUSTOM, tuple(sorted(self.custom, key=itemgetter(0))))

    @property
    def effective_batch_size(self) -> int:
        """Samples per optimizer step, over all processes."""
        return self.device_batch_size * self.world_size

    @property
    def device_batch_size(self) -> int:
        """Samples per optimizer step on one device."""
        return self.micro_batch_size * self.grad_accum_steps

    def replace(self, **changes: Any) -> Self:
        return dataclasses.replace(self, **changes)

    def value(self, knob: str) -> KnobValue:
        """Value of a built-in or custom knob. Raises KeyError if this configuration does not have it."""
        return getattr(self, knob) if knob in _BUILT_IN else dict(self.custom)[knob]

    def with_values(self, values: Mapping[str, KnobValue]) -> Self:
        """A copy with these knobs set by name. A name that is not a built-in knob is a custom knob."""
        built_in: dict[str, Any] = {name: value for name, value in values.items() if name in KNOB_NAMES}
        own = {name: value for name, value in values.items() if name not in KNOB_NAMES}
        return self.replace(**built_in, custom=tuple({**dict(self.custom), **own}.items()))

    def to_dict(self) -> dict[str, Any]:
        """Plain values. Custom knobs are a mapping under `custom`. Knobs of several processes are there only if there
        are several."""
        names = KNOB_NAMES if self.world_size == 1 else (*KNOB_NAMES, _WORLD_SIZE)
        left_out = RANK_KNOBS if self.world_size == 1 else ()
        built_in = {name: getattr(self, name) for name in names if name not in left_out}
        return {**built_in, _CUSTOM: dict(self.custom)} if self.custom else built_in

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`, also for untrusted values. Raises ValueError, in one line, for an unknown knob and for
        a value of another type or out of range."""
        from autotune.untrusted import check

        found = vars(check(config_model(), values))
        return cls(**{**found, _CUSTOM: tuple(found[_CUSTOM].items())})

    def canonical_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    def differences(self, other: TrainConfig) -> dict[str, tuple[KnobValue, KnobValue]]:
        """The knobs in which the two differ: name → (own value, the other's)."""
        pairs = list(zip(KNOB_NAMES, _built_in(self), _built_in(other), strict=True))
        if self.custom or other.custom:
            mine, theirs = dict(self.custom), dict(other.custom)
            pairs += [(name, mine.get(name), theirs.get(name)) for name in {**mine, **theirs}]
        return {name: (own, others) for name, own, others in pairs if own != others}


@functools.cache
def config_model() -> type[BaseModel]:
    """A pydantic model that checks the result of `to_dict`; its fields are those of `TrainConfig`."""
    from pydantic import ConfigDict, Field, create_model

    from autotune.untrusted import Scalar

    hints = get_type_hints(TrainConfig, include_extras=True)
    fields: dict[str, Any] = {
        field.name: (hints[field.name], field.default) for field in dataclasses.fields(TrainConfig)
    }
    fields[_CUSTOM] = (dict[Annotated[str, Field(pattern=_CUSTOM_NAME)], Scalar], Field(default_factory=dict))
    return create_model(
        "TrainConfig", __config__=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False), **fields
    )


_CUSTOM_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
KNOB_NAMES: tuple[str, ...] = tuple(
    field.name for field in dataclasses.fields(TrainConfig) if field.name not in (_CUSTOM, _WORLD_SIZE)
)
"""The built-in knobs, in their order."""
_BUILT_IN = frozenset(KNOB_NAMES)
_built_in = attrgetter(*KNOB_NAMES)
RANK_KNOBS = ("data_parallel", "bucket_cap_mb", "gradient_as_bucket_view", "static_graph")
"""Knobs that only several processes have."""
