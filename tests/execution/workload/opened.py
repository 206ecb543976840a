"""Data sets that say when they are opened, and what each leaves behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn, zeros
from torch.utils.data import Dataset

_KEPT: list[Any] = []
TAKES_S = 1.1
"""Seconds; of less nobody is told."""


class Vectors(Dataset[tuple[Tensor, int]]):
    num_classes = 2

    def __init__(self, noise: float) -> None:
        self.noise = noise

    def __len__(self) -> int:
        return 64

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        return zeros(8) + self.noise, position % 2


def build_data(log: str, way: str = "plain", noise_level: float = 0.0) -> Vectors:
    with Path(log).open("a") as lines:
        lines.write(f"{os.getpid()}\n")
    match way:
        case "maps a file":
            numbers = Path(log).with_suffix(".npy")
            np.save(numbers, np.zeros(1000))
            _KEPT.append(np.load(numbers, mmap_mode="r"))
        case "holds a file open":
            _KEPT.append(Path(log).open())  # noqa: SIM115 - it stays open
            time.sleep(TAKES_S)
        case "forks a process":
            if os.fork() == 0:
                time.sleep(600)
            time.sleep(TAKES_S)
        case "hangs":
            time.sleep(600)
        case "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "raises":
            raise FileNotFoundError("no such shard: train-0007")
    return Vectors(float(np.random.default_rng().random()))


def build_model(noise: float = 0.0, killed: str | None = None) -> nn.Module:
    """`killed`: a file that is made as somebody kills the process that builds the first one."""
    if killed is not None and not Path(killed).exists():
        Path(killed).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return nn.Linear(8, 2)
