"""A model whose first step in each process is slow, and that does to its process as its micro-batch size says."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

(
    OK,
    LEAVES_A_THREAD,
    LEAVES_A_PROCESS,
    LEAVES_AN_ORPHAN,
    KEEPS_MEMORY,
    TURNS_SWITCHES,
    POISONS,
    FAILS_WHEN_USED,
    EXITS_WHEN_USED,
    RAISES,
    HANGS,
    LARGE,
) = range(2, 14)
FEATURES, FIRST_STEP_S, KEPT_BYTES = 8, 0.6, 256 << 20
_kept: list[Any] = []
_steps_of_process = 0


def _leave_a_process() -> None:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


def _leave_an_orphan() -> None:
    """A grandchild whose parent is gone."""
    if os.fork() == 0:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        os._exit(0)
    os.wait()


def _turn_switches() -> None:
    torch.set_num_threads(3)
    torch.set_autocast_enabled("cpu", True)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.fp32_precision = "tf32"  # type: ignore[attr-defined]
    torch.manual_seed(time.time_ns())


def _poison() -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def _raise() -> None:
    raise ValueError("the 7th layer is missing")


_DEEDS = {
    LEAVES_A_THREAD: lambda: threading.Thread(target=time.sleep, args=(600,), daemon=True).start(),
    LEAVES_A_PROCESS: _leave_a_process,
    LEAVES_AN_ORPHAN: _leave_an_orphan,
    KEEPS_MEMORY: lambda: _kept.append(torch.ones(KEPT_BYTES // 4)),
    TURNS_SWITCHES: _turn_switches,
    POISONS: _poison,
    RAISES: _raise,
    HANGS: lambda: time.sleep(600),
    LARGE: lambda: torch.ones(KEPT_BYTES // 4).sum(),
}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, 2)
        self.dropout = nn.Dropout(0.3)
        self._steps = 0
        self._was_used = _steps_of_process > 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        global _steps_of_process
        size = inputs.shape[0]
        if not _steps_of_process:
            time.sleep(FIRST_STEP_S)
        _steps_of_process += 1
        self._steps += 1
        if self._steps == 1:
            _DEEDS.get(size, lambda: None)()
        if self._was_used and size == FAILS_WHEN_USED:
            raise ValueError("somebody was here before")
        if self._was_used and size == EXITS_WHEN_USED:
            os._exit(7)
        outputs: torch.Tensor = self.layer(self.dropout(inputs))
        return outputs


class Points(Dataset[tuple[torch.Tensor, int]]):
    """Each is a little different whenever it is read; `log` has a line for each process that opens it."""

    def __init__(self, log: str | None) -> None:
        if log is not None:
            with Path(log).open("a") as lines:
                lines.write(f"{os.getpid()}\n")

    def __len__(self) -> int:
        return 256

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        time.sleep(0.0005)
        return torch.full((FEATURES,), index / 256) + torch.rand(FEATURES), index % 2


def build_model() -> nn.Module:
    return Model()


def build_data(log: str | None = None) -> Dataset[tuple[torch.Tensor, int]]:
    return Points(log)
