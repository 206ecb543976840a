"""Repeats the first accumulation window as long as the GradScaler skips it while it finds its scale.

A skipped step does not change the weights but uses up its samples. Later losses would then belong to other samples than
those of the reference run. Only watched runs begin this way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

_MOST_SKIPS = 32
"""The scale starts at 2¹⁶ and halves each time: after so many skips, no scale is left to try."""


RandomState = tuple[torch.Tensor, torch.Tensor | None]
"""States of the host's generator and of the device's."""


class FirstWindow:
    """Batches; those of the first window can be repeated, with the same random numbers for the model."""

    def __init__(self, batches: Iterator[Any], device: torch.device) -> None:
        self._batches = batches
        self._device = device
        self._seen: list[tuple[Any, RandomState]] = []
        self._again: list[tuple[Any, RandomState]] = []
        self._skips = 0
        self._in_first = True

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._again:
            batch, state = self._again.pop(0)
            self._restore(state)
            return batch
        batch = next(self._batches)
        if self._in_first:
            # Saved after the loader has drawn its numbers, so that the model continues from here each time.
            self._seen.append((batch, self._random_state()))
        return batch

    def window_closed(self, *, skipped: bool) -> None:
        """Call this after each optimizer step."""
        if not self._in_first:
            return
        self._skips += skipped
        if skipped and self._skips < _MOST_SKIPS:
            self._again = list(self._seen)
        else:
            self._in_first, self._seen = False, []

    def _random_state(self) -> RandomState:
        return torch.get_rng_state(), self._device_random.get_rng_state() if self._device_random else None

    def _restore(self, state: RandomState) -> None:
        on_host, on_device = state
        torch.set_rng_state(on_host)
        if self._device_random and on_device is not None:
            self._device_random.set_rng_state(on_device)

    @property
    def _device_random(self) -> Any:
        """The torch module that has the device's generator; None for the CPU, whose state is the host's."""
        return None if self._device.type == "cpu" else getattr(torch, self._device.type)
