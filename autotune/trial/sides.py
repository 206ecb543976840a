"""One side of a training run without the other: ready batches for the step alone, or a drained loader alone."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import IterableDataset, RandomSampler
from torch.utils.data._utils.pin_memory import pin_memory

from autotune.config import TrainConfig
from autotune.host import allowed_cpus
from autotune.measure import disturbances, drain
from autotune.measure.ready import FEWEST, HANDFUL, LONG_S
from autotune.records import SideRate, TrialRequest
from autotune.training import build_dataloader, collate_of
from autotune.trial.machine_watch import MachineWatch
from autotune.trial.observed_loader import ObservedLoader

CPU = torch.device("cpu")
_MOST_OF_DISK = 0.1
"""Largest share of the free disk space for the batches of one size."""


def ready_batches(
    dataset: Any,
    config: TrainConfig,
    device: torch.device,
    seed: int,
    shelf: Path,
    collate: Callable[[list[Any]], Any] | None = None,
) -> list[Any]:
    """A few batches of the data set in host memory, pinned if `config` pins them.

    They are loaded once for each micro-batch size and each setting of the user's knobs. They stay in `shelf` for later
    processes if they can be pickled and there is room.
    """
    kept = shelf / f"batches-{_name(config)}.pt"
    batches = _taken_from(kept)
    if batches is None:
        batches = list(_loaded(dataset, config, seed, collate or collate_of(dataset)))
        if not batches:
            raise ValueError(f"the data set has too few samples for a batch of {config.micro_batch_size}")
        _keep(batches, kept)
    pins = config.pin_memory and device.type != "cpu"
    return [pin_memory(batch) for batch in batches] if pins else batches  # type: ignore[no-untyped-call]


def anew(batch: Any, device: torch.device) -> Any:
    """A copy of `batch`, as if nobody had moved it or taken anything out of it. Its tensors are shared, unless training
    computes in the same memory."""
    if isinstance(batch, torch.Tensor):
        return batch.clone() if device.type == "cpu" else batch
    if isinstance(batch, MutableMapping):
        again = copy.copy(batch)
        again.update({key: anew(value, device) for key, value in batch.items()})
        return again
    if isinstance(batch, tuple | list):
        parts = [anew(part, device) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return copy.copy(batch)


def drain_loader(loader: Any, observed: ObservedLoader, request: TrialRequest) -> SideRate | None:
    """The rate at which `loader`, whose log is `observed`, delivers batches to a process that does nothing else."""
    judge = partial(disturbances, cpus=len(allowed_cpus()))
    return drain(_Taker(observed.batches(loader)), observed, request, machine=MachineWatch(CPU), judge=judge)


class _Taker:
    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches

    def clock(self) -> float:
        return time.monotonic()

    def discard(self, batches: int) -> None:
        for _ in range(batches):
            next(self._batches)


def _name(config: TrainConfig) -> str:
    custom = hashlib.sha256(repr(sorted(dict(config.custom).items())).encode()).hexdigest()[:12]
    return f"{config.micro_batch_size}-{custom}"


def _loaded(dataset: Any, config: TrainConfig, seed: int, collate: Callable[[list[Any]], Any]) -> Iterator[Any]:
    """Load in as many loader processes as there are batches, if `config` has any; each loads one and ends."""
    streams = isinstance(dataset, IterableDataset)
    workers = min(config.num_workers, 1 if streams else HANDFUL)  # reading in this process may change a stream
    changes = {"num_workers": workers, "prefetch_factor": 1 if workers else None, "pin_memory": False}
    overrides: dict[str, Any] = {"collate_fn": collate}
    if not streams:
        generator = torch.Generator().manual_seed(seed)
        most = min(HANDFUL * config.micro_batch_size, len(dataset))
        overrides["sampler"] = RandomSampler(dataset, num_samples=most, generator=generator)
    loader = build_dataloader(dataset, config.with_values(changes), device=CPU, seed=seed, **overrides)
    began_s = time.monotonic()
    for number, batch in enumerate(itertools.islice(loader, HANDFUL), start=1):
        yield batch
        if not workers and number >= FEWEST and time.monotonic() - began_s > LONG_S:
            return


def _taken_from(kept: Path) -> list[Any] | None:
    return list(torch.load(kept, weights_only=False)) if kept.exists() else None


def _keep(batches: list[Any], kept: Path) -> None:
    """Write the file completely or not at all."""
    partial_file = kept.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(pickle.PicklingError, AttributeError, TypeError, RuntimeError, OSError):
        room = _MOST_OF_DISK * shutil.disk_usage(kept.parent).free
        if sum(map(_bytes_of, batches)) < room:
            torch.save(batches, partial_file)
            partial_file.rename(kept)
    partial_file.unlink(missing_ok=True)


def _bytes_of(batch: Any) -> int:
    """Bytes of the tensors in `batch`, as far as they are visible."""
    if isinstance(batch, torch.Tensor):
        return batch.numel() * batch.element_size()
    if isinstance(batch, Mapping):
        return sum(map(_bytes_of, batch.values()))
    return sum(map(_bytes_of, batch)) if isinstance(batch, list | tuple) else 0
