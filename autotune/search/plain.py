"""Plain arithmetic: what a configuration is compared with, and which configurations compute the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from autotune.config import TrainConfig
from autotune.records import Facts

_FEEDING: dict[str, Any] = {"pin_memory": False, "num_workers": 0, "prefetch_factor": None, "num_threads": None}
_MOST_HALVINGS = 3


def reference_of(config: TrainConfig, facts: Facts) -> TrainConfig:
    """`config` in plain arithmetic. What feeds it stays, so that augmentation and dropout draw the same numbers."""
    return config.replace(
        amp_dtype="none",
        # PyTorch's own choice is tf32 for cuDNN's convolutions; off CUDA there is nothing but ieee.
        fp32_precision="ieee" if facts.device.kind == "cuda" else None,
        memory_format="contiguous",
        compile="none",
        fused_optimizer=False,
        activation_checkpointing=False,
    )


def references_of(config: TrainConfig, facts: Facts) -> Iterator[TrainConfig]:
    """The reference of `config`, then the same optimizer steps in smaller micro-batches, which take less memory."""
    reference = reference_of(config, facts)
    for _ in range(_MOST_HALVINGS):
        yield reference
        if reference.micro_batch_size % 2:
            return
        reference = reference.replace(
            micro_batch_size=reference.micro_batch_size // 2, grad_accum_steps=2 * reference.grad_accum_steps
        )


def arithmetic(config: TrainConfig) -> TrainConfig:
    """What two configurations that compute the same share: everything but how the data comes in."""
    return config.replace(**_FEEDING)


def fed_like(config: TrainConfig, other: TrainConfig) -> TrainConfig:
    """`config` with its data coming in as that of `other`."""
    return config.replace(**{knob: getattr(other, knob) for knob in _FEEDING})
