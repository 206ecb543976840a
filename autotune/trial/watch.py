"""What the stability gates need: the gradients of every step, and the largest activations of a few steps.

Watching costs time, so only runs that are not measured for speed are watched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from autotune.records import FirstGradient, LargestActivation

_BUCKETS = 4096
"""Size of the sketch. For a true cosine c, the estimate scatters by about (1 − c²)/√4096: by 0.0003 at c = 0.99."""
_CHUNK = 1 << 22
_OF_A_MASK = 1e30


class GradientWatch:
    """Records the norms of all gradients, and a sketch of the first gradient."""

    def __init__(self) -> None:
        self.first: FirstGradient | None = None
        self._norms: list[Tensor] = []

    def look(self, parameters: Sequence[nn.Parameter]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = _whole(nn.utils.get_total_norm(gradients))
        self._norms.append(norm)
        if not gradients:
            return
        # A step that the scaler skips while it finds its scale has no gradient for comparison.
        if self.first is None and bool(torch.isfinite(norm)):
            self.first = _condensed(gradients, float(norm))

    def harvest(self) -> list[float]:
        """The norms since the last harvest. Copies from the device."""
        norms = torch.stack(self._norms).double().tolist() if self._norms else []
        self._norms = []
        return norms


def _condensed(gradients: Sequence[Tensor], norm: float) -> FirstGradient:
    gradients = [_whole(gradient) for gradient in gradients]
    elements = sum(gradient.numel() for gradient in gradients)
    zeros = sum(int((gradient == 0).sum()) for gradient in gradients)
    return FirstGradient(sketch=count_sketch(gradients).tolist(), norm=norm, zero_share=zeros / elements)


def _whole(tensor: Any) -> Tensor:
    """The whole of a tensor that is sharded over several processes; all of them must call this."""
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole


def count_sketch(tensors: Sequence[Tensor]) -> Tensor:
    """Every element, with a random sign, added to a random one of 4096 buckets; shape (4096,), fp64, on the CPU.

    Signs and buckets depend only on the index of an element, so that inner products of sketches estimate those of the
    tensors (Charikar, Chen and Farach-Colton, "Finding Frequent Items in Data Streams", ICALP 2002; for inner products:
    Pham and Pagh, "Fast and Scalable Polynomial Kernels via Explicit Feature Maps", KDD 2013).
    """
    sketch = torch.zeros(_BUCKETS, dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    for tensor in tensors:
        for chunk in tensor.detach().reshape(-1).split(_CHUNK):  # type: ignore[no-untyped-call]
            # One draw for both: the lowest bit is the sign, the other bits are the bucket.
            draw = torch.randint(2 * _BUCKETS, (chunk.numel(),), generator=random)
            signed = chunk.to("cpu", torch.float64) * (draw % 2 * 2 - 1)
            sketch.index_add_(0, draw // 2, signed)
    return sketch


class ActivationWatch:
    """Records the largest output of any module, in steps 1, 2, 4, 8, …: values grow while a model learns."""

    def __init__(self, model: nn.Module) -> None:
        self._peaks: dict[str, Tensor] = {}
        self._active = True
        self._steps = 0
        for name, module in model.named_modules():
            module.register_forward_hook(partial(self._look, name))

    def step_ended(self) -> None:
        self._steps += 1
        self._active = (self._steps + 1).bit_count() == 1

    def largest(self) -> LargestActivation | None:
        """None if no module returned a floating-point tensor. Copies from the device."""
        if not self._peaks:
            return None
        peaks = {name: float(peak) for name, peak in self._peaks.items()}
        name = max(peaks, key=lambda name: float("inf") if peaks[name] != peaks[name] else peaks[name])
        return LargestActivation(value=peaks[name], module=name)

    def _look(self, name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if not self._active:
            return
        for tensor in _floating(output):
            peak = _largest(tensor.detach().abs())
            self._peaks[name] = torch.maximum(self._peaks[name], peak) if name in self._peaks else peak


def _largest(magnitudes: Tensor) -> Tensor:
    """The largest magnitude. Ignores values near the smallest representable number: they fill attention masks."""
    if torch.finfo(magnitudes.dtype).max > _OF_A_MASK:
        magnitudes = magnitudes.masked_fill((magnitudes > _OF_A_MASK) & magnitudes.isfinite(), 0)
    return magnitudes.amax().float()


def _floating(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point() and output.numel():
            yield output
    elif isinstance(output, dict):
        yield from _floating(list(output.values()))
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _floating(part)
