"""Trains a study's workload through the files exported for another library, and measures the speed: one module for each
library.

What an export leaves to its user (threads, layout, the optimizer) is done here as its notes say. Every module has
`train(workload, stopwatch)`, which trains until the stopwatch says that the time is over.
"""

from __future__ import annotations

import importlib
import json
import math
import random
import runpy
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset, IterableDataset

from autotune.config import TrainConfig
from autotune.spec import parse_spec
from autotune.training import apply_to_model, apply_to_process
from autotune.trial.device import make_current, resolve_device, synchronise
from autotune.workload import Prepared, prepare

_WARM_UP_SHARE = 0.4
"""Share of the seconds; timing begins after it."""
_NEUTRAL: dict[str, Any] = {"compile": "none", "activation_checkpointing": False, "memory_format": "contiguous"}
"""Neutral settings of the model, for knobs that the library itself applies."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What the user of an export has: the files, and their own model, data and optimizer."""

    files: dict[str, str]
    """Name → path."""
    config: TrainConfig
    expresses: frozenset[str]
    """Knobs that the files set."""
    device: torch.device
    prepared: Prepared

    def exported(self, name: str) -> dict[str, Any]:
        """What the exported module `name` defines."""
        return runpy.run_path(self.files[name])

    @cached_property
    def model(self) -> nn.Module:
        left = {name: value for name, value in _NEUTRAL.items() if name in self.expresses}
        return apply_to_model(self.prepared.model(), replace(self.config, **left), self.device).train()

    @cached_property
    def optimizer(self) -> Optimizer:
        return self.prepared.optimizer(self.model, fused=self.config.fused_optimizer)

    def optimizer_without_fusing(self) -> Optimizer:
        return self.prepared.optimizer(self.model)

    @cached_property
    def dataset(self) -> Dataset[Any]:
        return self.prepared.dataset()

    @property
    def collate(self) -> Callable[[list[Any]], Any]:
        return self.prepared.collate_fn(self.dataset)

    @property
    def clip_grad_norm(self) -> float | None:
        return self.prepared.spec.training.clip_grad_norm

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Mean over the micro-batch."""
        loss = self.prepared.loss_fn()(model, batch)
        return loss[0] / loss[1] if isinstance(loss, tuple) else loss


class Stopwatch:
    """Counts optimizer steps and the seconds that they take, once the first ones are over."""

    def __init__(self, seconds: float, device: torch.device, *, epoch_steps: int | None = None) -> None:
        """`epoch_steps`: optimizer steps of an epoch; None if unknown."""
        self._seconds = seconds
        self._device = device
        self._epoch_steps = epoch_steps
        self._began_s: float | None = None
        self._timed_since_s: float | None = None
        self._laps = 0
        self._steps = 0
        self._timed_s = 0.0
        self._epoch_ends_s: list[float] = []

    def lap(self) -> bool:
        """Count one optimizer step; returns whether the time is over. The very first step, with its one-time work, does
        not count."""
        now = time.perf_counter()
        self._laps += 1
        if self._began_s is None:
            self._began_s = now
        elif self._timed_since_s is not None:
            self._steps += 1
            if self._epoch_steps is not None and self._laps % self._epoch_steps == 0:
                self._epoch_ends_s.append(now)
        elif now - self._began_s >= _WARM_UP_SHARE * self._seconds:
            synchronise(self._device)
            self._timed_since_s = now = time.perf_counter()
        if self._steps == 0 or now - self._began_s < self._seconds:
            return False
        synchronise(self._device)
        self._timed_s = time.perf_counter() - (self._timed_since_s or now)
        return True

    def epoch_s(self) -> float | None:
        """Mean seconds of the whole epochs that were timed; None if there was none."""
        if len(self._epoch_ends_s) < 2:
            return None
        return (self._epoch_ends_s[-1] - self._epoch_ends_s[0]) / (len(self._epoch_ends_s) - 1)

    def steps_per_s(self) -> float:
        return self._steps / self._timed_s


def main() -> None:
    """The job that stdin describes, as JSON: target, files, expresses, spec, folder, config, seconds, seed.

    The last printed line is a JSON object with `samples_per_s`: over whole epochs, if the time contains one.
    """
    job = json.loads(sys.stdin.read())
    spec, config = parse_spec(job["spec"], job["folder"]), TrainConfig.from_dict(job["config"])
    prepared = prepare(spec, Path(job["folder"]))
    device = resolve_device(spec.device)
    make_current(device)
    apply_to_process(config, device)
    random.seed(job["seed"])
    np.random.seed(job["seed"])
    torch.manual_seed(job["seed"])
    workload = Workload(
        files=job["files"],
        config=config,
        expresses=frozenset(job["expresses"]),
        device=device,
        prepared=prepared.with_custom(dict(config.custom)),
    )
    batches = _epoch_batches(workload)
    # The libraries step at the end of an epoch, even if a window is incomplete.
    epoch_steps = None if batches is None else math.ceil(batches / config.grad_accum_steps)
    stopwatch = Stopwatch(job["seconds"], device, epoch_steps=epoch_steps)
    importlib.import_module(f"{__name__}.through_{job['target']}").train(workload, stopwatch)
    samples_per_s = stopwatch.steps_per_s() * config.effective_batch_size
    epoch_s = stopwatch.epoch_s()
    if batches is not None and epoch_s is not None:
        samples_per_s = batches * config.micro_batch_size / epoch_s
    sys.stdout.write("\n" + json.dumps({"samples_per_s": samples_per_s}) + "\n")


def _epoch_batches(workload: Workload) -> int | None:
    """Full micro-batches of an epoch; None if the data set has no length."""
    dataset: Any = workload.dataset
    if isinstance(dataset, IterableDataset):
        return None
    return len(dataset) // workload.config.micro_batch_size or None
