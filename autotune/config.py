"""`TrainConfig`: one point of the search space, and what a user's training code loads."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

AmpDtype = Literal["none", "bf16", "fp16"]
MemoryFormat = Literal["contiguous", "channels_last"]
CompileMode = Literal["none", "default", "reduce-overhead", "max-autotune"]
Fp32Precision = Literal["ieee", "tf32"]
KnobValue = int | str | bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How to train: every knob with its value. The defaults are what an untuned PyTorch user gets.

    Frozen and hashable: two configurations are the same trial exactly when they are equal. `None` means that PyTorch's
    own default is left alone.
    """

    micro_batch_size: int = 32
    """Samples per forward and backward pass on one device."""
    grad_accum_steps: int = 1
    """Micro-batches per optimizer step."""
    amp_dtype: AmpDtype = "none"
    pin_memory: bool = False
    num_workers: int = 0
    prefetch_factor: int | None = None
    """Batches that each worker loads ahead; None without workers."""
    memory_format: MemoryFormat = "contiguous"
    compile: CompileMode = "none"
    fp32_precision: Fp32Precision | None = None
    fused_optimizer: bool = False
    activation_checkpointing: bool = False
    num_threads: int | None = None
    """Intra-op threads, CPU only."""

    @property
    def effective_batch_size(self) -> int:
        """Samples per optimizer step on one device."""
        return self.micro_batch_size * self.grad_accum_steps

    def replace(self, **changes: Any) -> Self:
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, KnobValue]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`. Raises TypeError on an unknown knob."""
        return cls(**values)

    def canonical_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    def differences(self, other: TrainConfig) -> dict[str, tuple[KnobValue, KnobValue]]:
        """Knobs in which the two differ: name → (own value, the other's)."""
        mine, theirs = self.to_dict(), other.to_dict()
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}


KNOB_NAMES: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(TrainConfig))
