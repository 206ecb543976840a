"""A model whose forward sleeps and a data set whose samples do, for `sleeping_worlds.py`."""

from __future__ import annotations

import time

import torch
from torch import nn
from torch.utils.data import Dataset


class SleepingModel(nn.Module):
    def __init__(self, step_sample_s: float, first_step_s: float) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 2)
        self._step_sample_s = step_sample_s
        self._first_step_s = first_step_s

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        time.sleep(self._first_step_s + self._step_sample_s * len(inputs))
        self._first_step_s = 0.0
        out: torch.Tensor = self.linear(inputs)
        return out


class SleepingSamples(Dataset[tuple[torch.Tensor, int]]):
    """Two classes that a linear layer learns."""

    def __init__(self, samples: int, sample_s: float) -> None:
        self._samples = samples
        self._sample_s = sample_s

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if not 0 <= index < self._samples:
            raise IndexError(index)
        time.sleep(self._sample_s)
        label = index % 2
        return torch.full((8,), 0.5 if label else -0.5), label


def build(step_sample_s: float, first_step_s: float) -> nn.Module:
    return SleepingModel(step_sample_s, first_step_s)


def data(samples: int, sample_s: float) -> Dataset[tuple[torch.Tensor, int]]:
    return SleepingSamples(samples, sample_s)
