"""A model that behaves as its batch size says, and one whose import starts a thread. For `factory:` in test specs."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

import torch
from torch import nn
from torch.utils.data import Dataset

OK, OOM_RAISED, OOM_KILLED, OOM_ALLOCATION, SEGFAULT, HANG, RAISE, RUBBISH, EXIT_0, NAN, EXIT_3, ORPHAN = range(2, 14)
LOUD, PARRICIDE, INTERRUPT, OTHER_USER, UNSPEAKABLE = range(14, 19)
FEATURES = 4


def _overflow_memory() -> None:
    torch.empty(1 << 50)


def _read_address_zero() -> None:
    ctypes.string_at(0)


def _leave_an_orphan() -> None:
    """A process in a session of its own, which no signal to the trial's group reaches."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)


def _raise_oom() -> None:
    raise torch.OutOfMemoryError("simulated: tried to allocate 2.00 GiB")


def _raise() -> None:
    raise ValueError("the 7th layer is missing")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def _raise_unspeakable() -> None:
    raise Unspeakable


def _interrupt() -> None:
    raise KeyboardInterrupt("as in a notebook")


def _become_another_user() -> None:
    if os.getuid() == 0:
        os.setuid(65534)
    raise ValueError("no longer who I was")


_DEEDS = {
    OOM_RAISED: _raise_oom,
    OOM_KILLED: lambda: os.kill(os.getpid(), signal.SIGKILL),
    OOM_ALLOCATION: _overflow_memory,
    SEGFAULT: _read_address_zero,
    HANG: lambda: time.sleep(600),
    RAISE: _raise,
    RUBBISH: lambda: print('{"event": "result"}\n\x00\xff', flush=True),
    EXIT_0: lambda: os._exit(0),
    EXIT_3: lambda: sys.exit(3),
    ORPHAN: _leave_an_orphan,
    PARRICIDE: lambda: os.kill(os.getppid(), signal.SIGKILL),
    INTERRUPT: _interrupt,
    OTHER_USER: _become_another_user,
    UNSPEAKABLE: _raise_unspeakable,
    LOUD: lambda: sys.stderr.write("x" * 1_000_000),
}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        size = inputs.shape[0]
        _DEEDS.get(size, lambda: None)()
        outputs: torch.Tensor = self.layer(inputs)
        return outputs * float("nan") if size == NAN else outputs


class Points(Dataset[tuple[torch.Tensor, int]]):
    def __len__(self) -> int:
        return 256

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        time.sleep(0.0005)
        return torch.full((FEATURES,), index / 256), index % 2


def build_model() -> nn.Module:
    return Model()


def build_data() -> Dataset[tuple[torch.Tensor, int]]:
    return Points()


class SlowPoints(Points):
    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        time.sleep(5)
        return super().__getitem__(index)


def build_slow_data() -> Dataset[tuple[torch.Tensor, int]]:
    return SlowPoints()


class Unmeasurable(Points):
    def __len__(self) -> int:
        raise RuntimeError("no length")


def build_unmeasurable_data() -> Dataset[tuple[torch.Tensor, int]]:
    return Unmeasurable()


def interrupted() -> nn.Module:
    raise KeyboardInterrupt
