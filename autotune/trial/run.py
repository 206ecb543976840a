"""One trial, from the workload to its result, with the same step and loader that users' own training code calls."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader

from autotune.config import TrainConfig
from autotune.host import allowed_cpus
from autotune.measure import Loader, Measurement, ReadyBatches, disturbances
from autotune.records import Record, TrialRequest, TrialStatus
from autotune.training import TrainStep, apply_to_model, apply_to_process, build_dataloader, distribute
from autotune.trial.crew import ALONE, END
from autotune.trial.device import make_current, synchronise
from autotune.trial.failure import classify, describe, poisons
from autotune.trial.first_window import FirstWindow
from autotune.trial.loop import Loop, Watch
from autotune.trial.machine_watch import MachineWatch
from autotune.trial.memory import MemoryWatch
from autotune.trial.observed_loader import ObservedLoader
from autotune.trial.ranks import Ranks
from autotune.trial.sides import CPU, anew, drain_loader, ready_batches
from autotune.trial.timeline import make_timeline
from autotune.workload import Prepared


class Report(Protocol):
    """`Reporter`, or its replacement in one of several ranks."""

    def __call__(self, event: str, payload: dict[str, Any] | None = None) -> None: ...


def run_trial(
    prepared: Prepared,
    request: TrialRequest,
    device: torch.device,
    report: Report,
    scratch: Path,
    ranks: Ranks | None = None,
    resident_before: int | None = None,
) -> str | None:
    """Train, measure and report. What the workload raises becomes the trial's status: a failed trial is data.

    `ranks`: this process as one of several ranks; None if it trains alone. `resident_before`: bytes of the resident set
    before the process's first run; None: this is the first run. Returns the reason why nothing more can run in this
    process; None if there is none.
    """
    poisoned = None
    device = CPU if request.side == "loader" else device
    unreadable_log = scratch / f"unreadable-{time.monotonic_ns()}.txt"
    memory = MemoryWatch(device, resident_before)
    watch = Watch(timeline=make_timeline(device, time.monotonic))
    outcome: dict[str, Any] = {"failure": None}
    error: BaseException | None = None
    try:
        if request.side == "loader":
            outcome |= _drain(prepared, request, report, unreadable_log)
        else:
            outcome |= _train(prepared, request, device, report, watch, unreadable_log, ranks, scratch)
    except BaseException as raised:  # noqa: BLE001 - what the user's workload raises is a result
        error = raised
    with _deaf_to_children():
        if error is not None:
            outcome = {"status": classify(error), "failure": describe(error).model_dump()}
            poisoned = outcome["failure"]["reason"] if poisons(error) else None
        unreadable = []
        with contextlib.suppress(OSError):  # usually there is none; and the workload may have changed its user id
            unreadable = unreadable_log.read_text().splitlines()
        seen = {"memory": memory.read().model_dump(), "unreadable_samples": sorted(set(unreadable))}
        report("result", {**outcome, **seen, **watch.findings()})
    return poisoned


@contextlib.contextmanager
def _deaf_to_children() -> Iterator[None]:
    """Ignore the deaths of loader processes meanwhile. PyTorch raises at any point of this process when one of them
    dies. The failure to fetch a batch may be noticed first, and PyTorch's exception would then interrupt its report."""
    before = signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _train(
    prepared: Prepared,
    request: TrialRequest,
    device: torch.device,
    report: Report,
    watch: Watch,
    unreadable_log: Path,
    ranks: Ranks | None,
    scratch: Path,
) -> dict[str, Any]:
    """Train and measure; returns what the measurement adds to the trial's result."""
    config = request.config
    make_current(device)
    apply_to_process(config, device)
    prepared = prepared.with_custom(dict(config.custom))
    _seed_everything(request.seed)
    model = apply_to_model(prepared.model(), config, device)
    model.train()
    if request.watch_training:
        watch.look_at_training(model, compiled=config.compile != "none")
    model = distribute(model, config, device)
    if ranks is not None:
        ranks.watch(model)
        _seed_everything(request.seed + ranks.rank)  # the same weights on all ranks, but different augmentation
    optimizer = prepared.optimizer(model, fused=config.fused_optimizer)
    clip = prepared.spec.training.clip_grad_norm
    step = TrainStep(model, optimizer, prepared.loss_fn(), config, device=device, clip_grad_norm=clip, observer=watch)
    batches, seen = _batches(prepared, unreadable_log, request, device, scratch)
    report("started")
    loop = Loop(
        batches=FirstWindow(batches, device) if request.watch_training else batches,
        step=step,
        clock=time.monotonic,
        synchronise=partial(synchronise, device),
        watch=watch,
        crew=ranks or ALONE,
        trains_on_cpu=device.type == "cpu",
    )
    if ranks is not None and ranks.rank > 0:
        ranks.follow(loop)
        return {"status": TrialStatus.OK}
    judge = partial(disturbances, cpus=len(allowed_cpus()))
    machine = MachineWatch(device, root=ranks.root if ranks else None)
    measurement = Measurement(loop, seen, request, report, machine=machine, judge=judge)
    status = measurement.run()
    loop.begin(END)
    unequal = {"mean_of_means": step.unequal is not None}
    if request.side == "step":
        return {"status": status, "side_rate": _as_json(measurement.step_rate()), **unequal}
    return {"status": status, "rates": _as_json(measurement.rates()), **unequal}


def _drain(prepared: Prepared, request: TrialRequest, report: Report, unreadable_log: Path) -> dict[str, Any]:
    """Like `_train`, without a model, and without pinning, which happens after a batch is loaded."""
    config = request.config.with_values({"pin_memory": False})
    prepared = prepared.with_custom(dict(config.custom))
    _seed_everything(request.seed)
    loader, observed = _loader(prepared, unreadable_log, config, CPU, request.seed)
    report("started")
    rate = drain_loader(loader, observed, request)
    return {"status": TrialStatus.OK, "side_rate": _as_json(rate)}


def _as_json(record: Record | None) -> dict[str, Any] | None:
    return record.model_dump(mode="json") if record else None


def _seed_everything(seed: int) -> None:
    """Seed the weights, and the augmentation of a loader without processes; otherwise a fork would continue the
    template's state."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _batches(
    prepared: Prepared, unreadable_log: Path, request: TrialRequest, device: torch.device, scratch: Path
) -> tuple[Iterator[Any], Loader]:
    """The batches to train on, and what is known about their loading."""
    if request.side == "step":
        dataset = prepared.dataset(unreadable_log)
        collate = prepared.collate_fn(dataset)
        batches = ready_batches(dataset, request.config, device, request.seed, scratch, collate)
        ready = ReadyBatches(batches, time.monotonic, partial(anew, device=device))
        return iter(ready), ready
    loader, observed = _loader(prepared, unreadable_log, request.config, device, request.seed)
    return observed.batches(loader), observed


def _loader(
    prepared: Prepared, unreadable_log: Path, config: TrainConfig, device: torch.device, seed: int
) -> tuple[DataLoader[Any], ObservedLoader]:
    """The loader that users get; its batches are observed if loader processes make them."""
    observed = ObservedLoader(config)
    dataset = prepared.dataset(unreadable_log)
    collate = prepared.collate_fn(dataset)
    if config.num_workers:
        collate = observed.observing(collate)
    return build_dataloader(dataset, config, device=device, seed=seed, collate_fn=collate), observed
