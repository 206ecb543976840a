"""A model that says, by raising it, where its trial runs; and one that meets the other slot's trial."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from misbehaving import FEATURES, build_data
from torch import nn

__all__ = ["build_data", "build_model"]

TELL, MEET, SLEEP = 3, 4, 5


class Model(nn.Module):
    def __init__(self, meeting: str) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, 2)
        self._meeting = Path(meeting)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        size = inputs.shape[0]
        if size == TELL:
            cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
            raise ValueError(f"cores {cores} devices {os.environ['CUDA_VISIBLE_DEVICES']}")
        if size == MEET:
            self._meet()
        if size == SLEEP:
            time.sleep(600)
        outputs: torch.Tensor = self.layer(inputs)
        return outputs

    def _meet(self) -> None:
        """Wait until two trials have come here; none of two in a row would."""
        (self._meeting / str(os.getpid())).touch()
        ends_s = time.monotonic() + 20
        while len(list(self._meeting.iterdir())) < 2:
            if time.monotonic() > ends_s:
                raise TimeoutError("nobody else came")
            time.sleep(0.01)


def build_model(meeting: str) -> nn.Module:
    return Model(meeting)
