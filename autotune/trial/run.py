"""One trial, from the workload to its result: the same step and the same loader that users' own training code calls."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, default_collate

from autotune.config import TrainConfig
from autotune.records import TrialRequest, TrialStatus
from autotune.training import TrainStep, apply_to_model, apply_to_process, build_dataloader
from autotune.trial.channel import Reporter
from autotune.trial.device import synchronise
from autotune.trial.failure import classify, describe
from autotune.trial.memory import MemoryWatch
from autotune.trial.stock import Stock
from autotune.trial.timing import Loop, Measurement
from autotune.workload import Prepared


def run_trial(prepared: Prepared, request: TrialRequest, device: torch.device, report: Reporter, scratch: Path) -> None:
    """Train, measure and report. What the workload raises becomes the trial's status: a failed trial is data."""
    unreadable_log = scratch / f"unreadable-{time.monotonic_ns()}.txt"
    memory = MemoryWatch(device)
    outcome: dict[str, Any] = {"status": TrialStatus.OK, "failure": None}
    try:
        _train(prepared, request, device, report, unreadable_log)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - what the user's workload raises is an outcome
        outcome = {"status": classify(error), "failure": describe(error).model_dump()}
    unreadable = unreadable_log.read_text().splitlines() if unreadable_log.exists() else []
    report("result", {**outcome, "memory": memory.read().model_dump(), "unreadable_samples": sorted(set(unreadable))})


def _train(
    prepared: Prepared, request: TrialRequest, device: torch.device, report: Reporter, unreadable_log: Path
) -> None:
    config = request.config
    apply_to_process(config, device)
    _seed_everything(request.seed)
    model = apply_to_model(prepared.model(), config, device)
    model.train()
    optimizer = prepared.optimizer(model.parameters(), fused=config.fused_optimizer)
    clip = prepared.spec.training.clip_grad_norm
    step = TrainStep(model, optimizer, prepared.loss_fn(), config, device=device, clip_grad_norm=clip)
    loader, stock = _loader(prepared.dataset(unreadable_log), config, device, request.seed)
    report("started")
    loop = Loop(
        batches=_endless(loader, stock), step=step, clock=time.monotonic, synchronise=partial(synchronise, device)
    )
    Measurement(loop, request, report).run(lambda: stock is None or stock.head_start_spent)


def _seed_everything(seed: int) -> None:
    """Weights, and the augmentation of a loader without processes; a fork would else continue the template's state."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _loader(dataset: Any, config: TrainConfig, device: torch.device, seed: int) -> tuple[DataLoader[Any], Stock | None]:
    """The loader that users get, its finished batches counted where it works ahead."""
    if not config.num_workers:
        return build_dataloader(dataset, config, device=device, seed=seed), None
    stock = Stock(num_workers=config.num_workers, prefetch_factor=config.prefetch_factor or 2)
    collate = stock.counting(getattr(dataset, "collate_fn", None) or default_collate)
    return build_dataloader(dataset, config, device=device, seed=seed, collate_fn=collate), stock


def _endless(loader: DataLoader[Any], stock: Stock | None) -> Iterator[Any]:
    """Epoch after epoch, each begun as a user's loop begins it."""
    while True:
        empty = True
        for batch in loader:
            empty = False
            if stock is not None:
                stock.take()
            yield batch
        if empty:
            raise ValueError("the data set gives no full batch of this size")
