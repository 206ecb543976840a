"""Batches of any shape: how to move one to the device, and how many samples it holds."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

_IMAGE_BATCH_DIMENSIONS = 4


def move_batch(
    batch: Any,
    device: torch.device,
    *,
    non_blocking: bool = False,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Any:
    """The same structure with every tensor on `device`.

    Traverses tuples, named tuples, lists and mappings, calls `.to(device)` on any object that has it, and leaves
    everything else as it is. `memory_format` applies only to floating-point tensors with four dimensions.
    """

    def move(part: Any) -> Any:
        return move_batch(part, device, non_blocking=non_blocking, memory_format=memory_format)

    if isinstance(batch, Tensor):
        return _move_tensor(batch, device, non_blocking, memory_format)
    if hasattr(batch, "to"):
        moved = batch.to(device, non_blocking=non_blocking) if _takes_non_blocking(batch.to) else batch.to(device)
        has_images = memory_format != torch.contiguous_format and isinstance(moved, MutableMapping)
        return _rebuild_mapping(moved, {key: move(value) for key, value in moved.items()}) if has_images else moved
    if isinstance(batch, Mapping):
        return _rebuild_mapping(batch, {key: move(value) for key, value in batch.items()})
    if isinstance(batch, tuple | list):
        parts = map(move, batch)
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch


def _rebuild_mapping(original: Mapping[Any, Any], moved: dict[Any, Any]) -> Mapping[Any, Any]:
    """`moved` as a mapping of the same type, with its other state, such as a default factory."""
    if not isinstance(original, MutableMapping):
        return moved
    rebuilt = copy.copy(original)
    rebuilt.update(moved)
    return rebuilt


def _move_tensor(
    tensor: Tensor, device: torch.device, non_blocking: bool, memory_format: torch.memory_format
) -> Tensor:
    moved = tensor.to(device, non_blocking=non_blocking)
    if tensor.dim() == _IMAGE_BATCH_DIMENSIONS and tensor.is_floating_point():
        # After the copy, so that the device changes the layout and the pinned source is read in order.
        moved = moved.contiguous(memory_format=memory_format)
    return moved


def _takes_non_blocking(to: Any) -> bool:
    try:
        parameters = inspect.signature(to).parameters.values()
    except ValueError:
        return False
    return any(p.name == "non_blocking" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def batch_size(batch: Any) -> int:
    """Samples in `batch`: the leading dimension of the first tensor in it that has one.

    Searches the same structures as `move_batch`, and the attributes of objects. Raises TypeError if there is no such
    tensor.
    """
    for tensor in _tensors(batch):
        if tensor.dim() > 0:
            return tensor.shape[0]
    raise TypeError(f"cannot tell how many samples a batch of type {type(batch).__name__} holds: no tensor in it")


def input_shape(batch: Any) -> tuple[int, ...] | None:
    """Shape of one sample of the model's input: of the first images in `batch`; else of the first tensor in a mapping,
    or in the first item of a tuple. None if there is none."""
    inputs = batch[0] if isinstance(batch, tuple | list) and batch else batch
    images = (t for t in _tensors(batch) if t.dim() == _IMAGE_BATCH_DIMENSIONS and t.is_floating_point())
    first = next(images, None)
    if first is None:
        first = next((tensor for tensor in _tensors(inputs) if tensor.dim() > 0), None)
    return None if first is None else tuple(first.shape[1:])


def sample_shapes(batch: Any) -> tuple[tuple[int, ...], ...]:
    """Shape of each tensor in `batch`, without the dimension of the samples."""
    return tuple(tuple(tensor.shape[1:]) for tensor in _tensors(batch) if tensor.dim() > 0)


def structure(sample: Any) -> str:
    """Description for messages: `image 3×48×48, label scalar` for a mapping, `3×48×48, scalar` for a tuple."""
    if isinstance(sample, Mapping):
        return ", ".join(f"{key} {_bracketed(value)}" for key, value in sample.items())
    if isinstance(sample, tuple | list):
        return ", ".join(map(_bracketed, sample))
    if isinstance(sample, int | float):
        return "scalar"
    shape = getattr(sample, "shape", None)
    return type(sample).__name__ if shape is None else "×".join(map(str, shape)) or "scalar"


def _bracketed(part: Any) -> str:
    return f"({structure(part)})" if isinstance(part, Mapping | tuple | list) else structure(part)


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
        return
    if isinstance(batch, Mapping):
        parts = list(batch.values())
    elif isinstance(batch, tuple | list):
        parts = list(batch)
    else:
        parts = list(getattr(batch, "__dict__", {}).values())
    for part in parts:
        yield from _tensors(part)
