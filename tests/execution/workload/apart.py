"""A workload whose sides are worth measuring apart: loading sleeps and hardly computes, a process starts slowly."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

FEATURES, SAMPLE_S, BATCH_S, START_S, FIRST_STEP_S = 4, 0.001, 0.01, 0.3, 0.8
_slept: set[str] = set()
"""What this process has slept for once."""


def _sleep_once(what: str, seconds: float) -> None:
    if what not in _slept:
        time.sleep(seconds)
        _slept.add(what)


class Points(Dataset[tuple[torch.Tensor, int]]):
    def __len__(self) -> int:
        return 512

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[torch.Tensor, int]]:
        """What a DataLoader asks for: one sleep a batch."""
        time.sleep(SAMPLE_S * len(indices))
        return [(torch.full((FEATURES,), index / len(self)), index % 2) for index in indices]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        _sleep_once("start", START_S)
        self.layer = nn.Linear(FEATURES, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        _sleep_once("first step", FIRST_STEP_S)
        time.sleep(BATCH_S)
        outputs: torch.Tensor = self.layer(inputs)
        return outputs


def build_model() -> nn.Module:
    return Model()


def build_data(log: str | None = None, takes_s: float = 0.0) -> Dataset[tuple[torch.Tensor, int]]:
    """`log` has a line for each time that it is opened, `takes_s` seconds later."""
    time.sleep(takes_s)
    if log is not None:
        with Path(log).open("a") as lines:
            lines.write(f"after {takes_s} s\n")
    return Points()
