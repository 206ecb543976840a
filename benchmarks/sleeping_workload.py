"""A workload whose times are known: samples that sleep as they load, and a model that sleeps as it trains.

A batch sleeps once, not once for each of its samples: on a busy machine each sleep ends late by what the process waits
for a core, and hundreds of them would make this a measurement of the machine.
"""

from __future__ import annotations

import time

import torch
from torch import nn
from torch.utils.data import Dataset

FEATURES, CLASSES = 16, 4
_done: set[str] = set()
"""What this process has slept for once."""


class SleepingSamples(Dataset[tuple[torch.Tensor, int]]):
    """Learnable points, each of which takes `sample_s` seconds to load, alone or in a batch."""

    def __init__(self, samples: int, sample_s: float) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(samples, FEATURES, generator=generator)
        self.targets = self.inputs[:, :CLASSES].argmax(dim=1).tolist()
        self.sample_s = sample_s

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[torch.Tensor, int]]:
        """What a DataLoader asks for."""
        time.sleep(self.sample_s * len(indices))
        return [(self.inputs[index], self.targets[index]) for index in indices]


class SleepingModel(nn.Module):
    """Takes `batch_s` + `sample_s` × micro-batch size seconds, and the first step in a process `first_s` more."""

    def __init__(self, batch_s: float, sample_s: float, first_s: float) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, CLASSES)
        self.batch_s, self.sample_s, self.first_s = batch_s, sample_s, first_s

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        _sleep_once("first step", self.first_s)
        time.sleep(self.batch_s + self.sample_s * len(inputs))
        out: torch.Tensor = self.layer(inputs)
        return out


def _sleep_once(what: str, seconds: float) -> None:
    if what not in _done:
        time.sleep(seconds)
        _done.add(what)


def build_data(samples: int, sample_s: float) -> SleepingSamples:
    return SleepingSamples(samples, sample_s)


def build_model(batch_s: float, sample_s: float, first_s: float, start_s: float = 0.0) -> SleepingModel:
    """The first one in a process takes `start_s`."""
    _sleep_once("start", start_s)
    return SleepingModel(batch_s, sample_s, first_s)
