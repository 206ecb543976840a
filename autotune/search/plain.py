"""Plain arithmetic: what a configuration is compared with, and which configurations compute the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from autotune.config import TrainConfig
from autotune.records import Facts

_FEEDING: dict[str, Any] = {"pin_memory": False, "num_workers": 0, "prefetch_factor": None, "num_threads": None}
_MOST_HALVINGS = 2


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
    """The reference of `config`, then the same optimizer steps in ways that take less memory: activations that are
    computed again, where `config` does so too, and smaller micro-batches."""
    reference = reference_of(config, facts)
    yield reference
    if config.activation_checkpointing:
        reference = reference.replace(activation_checkpointing=True)
        yield reference
    for _ in range(_MOST_HALVINGS):
        if reference.micro_batch_size % 2:
            return
        reference = reference.replace(
            micro_batch_size=reference.micro_batch_size // 2, grad_accum_steps=2 * reference.grad_accum_steps
        )
        yield reference


def computes_like(config: TrainConfig, other: TrainConfig) -> bool:
    """Whether it computes with the same precision and kernels as `other`, in micro-batches of whatever size; in fp16 of
    the same size, by which each of them divides its loss, so that it decides what underflows."""
    if config.amp_dtype != "fp16":
        other = other.replace(micro_batch_size=config.micro_batch_size, grad_accum_steps=config.grad_accum_steps)
    return arithmetic(config) == arithmetic(other)


def arithmetic(config: TrainConfig) -> TrainConfig:
    """What two configurations that compute the same share: everything but how the data comes in."""
    return config.replace(**_FEEDING)


def fed_like(config: TrainConfig, other: TrainConfig) -> TrainConfig:
    """`config` with its data coming in as that of `other`."""
    return config.replace(**{knob: getattr(other, knob) for knob in _FEEDING})
