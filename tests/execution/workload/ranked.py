"""A workload for trials of several ranks, whose rank 1 behaves as its micro-batch size says, from its sixth pass on."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset

OK, OOM_RAISED, OOM_KILLED, SEGFAULT, RAISE, EXIT_0, HANG_IN_FORWARD, HANG_AT_ONCE, SLOW = range(4, 13)
BAD_RANK, FROM = 1, 6
FEATURES, SAMPLES = 8, 4096


def _place() -> tuple[int, int]:
    """Rank and number of ranks, in a trial's process and in those of its loader."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _raise_oom() -> None:
    raise torch.OutOfMemoryError("simulated: tried to allocate 2.00 GiB")


def _raise() -> None:
    raise ValueError("the 7th layer is missing")


def _hang() -> None:
    time.sleep(600)


_DEEDS: dict[int, Callable[[], object]] = {
    OOM_RAISED: _raise_oom,
    OOM_KILLED: lambda: os.kill(os.getpid(), signal.SIGKILL),
    SEGFAULT: lambda: ctypes.string_at(0),
    RAISE: _raise,
    EXIT_0: lambda: os._exit(0),
    HANG_IN_FORWARD: _hang,
}


class Model(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(FEATURES, 16), nn.Tanh(), nn.Linear(16, 3)).to(dtype)
        self._passes = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self._passes += 1
        size = inputs.shape[0]
        if _place()[0] == BAD_RANK:
            if self._passes >= FROM:
                _DEEDS.get(size, lambda: None)()
            if size == HANG_AT_ONCE:
                _hang()
            if size == SLOW:
                time.sleep(0.02)
        outputs: torch.Tensor = self.layers(inputs)
        return outputs


def build_model(dtype: str = "float64") -> nn.Module:
    return Model(getattr(torch, dtype))


class Points(Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, dtype: torch.dtype, hang_after: int | None = None) -> None:
        generator = torch.Generator().manual_seed(3)
        self._inputs = torch.randn(SAMPLES, FEATURES, generator=generator, dtype=torch.float64).to(dtype)
        self._hang_after = hang_after
        self._taken = 0

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self._taken += 1
        if _place()[0] == BAD_RANK and self._hang_after is not None and self._taken > self._hang_after:
            _hang()
        return self._inputs[index], int(self._inputs[index].sum() > 0) + index % 2


class SharedOut(IterableDataset[tuple[torch.Tensor, int]]):
    """The same points in their order, micro-batch by micro-batch in turns: what all ranks see is what one would."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._points = Points(dtype)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        place, ranks = _place()
        while True:
            yield from (self._points[index] for index in range(place, SAMPLES, ranks))


def build_data(
    dtype: str = "float64", shared: bool = False, hang_after: int | None = None
) -> Dataset[tuple[torch.Tensor, int]]:
    """`shared`: every rank sees its share of one stream; `hang_after`: samples, on the bad rank."""
    return SharedOut(getattr(torch, dtype)) if shared else Points(getattr(torch, dtype), hang_after)
