"""The data loader that a `TrainConfig` describes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate
from torch.utils.data.distributed import DistributedSampler

from autotune.config import TrainConfig
from autotune.training.batch import structure
from autotune.training.errors import SettingHasNoEffect
from autotune.training.together import rank, world_size

_CANNOT_PIN = {"cpu": "no accelerator", "meta": "no accelerator", "mps": "PyTorch does not pin memory for MPS"}


def loader_kwargs(config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """Keyword arguments of a DataLoader that feeds `device` as `config` says.

    Raises SettingHasNoEffect for pinning without an accelerator, and for a prefetch factor without workers.
    """
    if config.pin_memory and device.type in _CANNOT_PIN:
        raise SettingHasNoEffect("pin_memory", True, _CANNOT_PIN[device.type])
    if config.prefetch_factor is not None and config.num_workers == 0:
        raise SettingHasNoEffect("prefetch_factor", config.prefetch_factor, "no workers")
    arguments: dict[str, Any] = {
        "batch_size": config.micro_batch_size,
        "num_workers": config.num_workers,
        "pin_memory": config.pin_memory,
    }
    if config.num_workers > 0:
        arguments["persistent_workers"] = True
        if config.prefetch_factor is not None:
            arguments["prefetch_factor"] = config.prefetch_factor
    return arguments


def collate_of(dataset: Any) -> Callable[[list[Any]], Any]:
    """The function that makes a batch of a list of samples: the data set's own method, if it has one."""
    return getattr(dataset, "collate_fn", None) or stack


def stack(samples: list[Any]) -> Any:
    """PyTorch's `default_collate`. Raises ValueError, with what to do, for samples that do not fit together."""
    try:
        return default_collate(samples)
    except (RuntimeError, TypeError, KeyError) as error:
        shapes = [structure(sample) for sample in samples]
        if len(set(shapes)) < 2:
            raise
        other = next(shape for shape in shapes if shape != shapes[0])
        raise ValueError(
            f"the samples of a batch differ in shape or kind: {shapes[0]} and {other}; name a function "
            "that makes a batch of a list of them: data.collate in the spec, collate_fn= in Python"
        ) from error


def build_dataloader(
    dataset: Dataset[Any],
    config: TrainConfig,
    *,
    device: torch.device,
    shuffle: bool = True,
    seed: int | None = None,
    drop_last: bool = True,
    **overrides: Any,
) -> DataLoader[Any]:
    """A DataLoader of micro-batches over `dataset`.

    `shuffle` is ignored for iterable data sets, and if `overrides` contains a sampler. `seed` fixes the order of the
    samples and the seeds of the workers. If several processes train together, each gets its part from a
    DistributedSampler: call its `set_epoch` as usual. An iterable data set must divide its samples among the processes
    itself, as among workers. `drop_last` is on by default because a shorter last batch makes torch.compile compile
    again, breaks CUDA graphs, and gives BatchNorm statistics of a few samples. Batches are made by the data set's
    method `collate_fn` if it has one, else by PyTorch. `overrides` are passed to the DataLoader and take precedence.

    Raises ValueError if the data set is smaller than one batch and `drop_last` would drop all of it.
    """
    arguments = loader_kwargs(config, device) | {"drop_last": drop_last}
    if hasattr(dataset, "collate_fn") or overrides.get("batch_size", 1) is not None:
        arguments["collate_fn"] = collate_of(dataset)
    if not isinstance(dataset, IterableDataset) and "sampler" not in overrides:
        if world_size() > 1:
            # With unequal parts, the process with the longest part would wait for the others at the end of an epoch.
            arguments["sampler"] = DistributedSampler(dataset, shuffle=shuffle, seed=seed or 0, drop_last=drop_last)
        else:
            arguments["shuffle"] = shuffle
    if seed is not None:
        arguments["generator"] = torch.Generator().manual_seed(seed + rank())
    if "batch_sampler" in overrides:
        for name in ("batch_size", "shuffle", "sampler", "drop_last"):
            arguments.pop(name, None)
    loader: DataLoader[Any] = DataLoader(dataset, **(arguments | overrides))
    if loader.drop_last and not isinstance(dataset, IterableDataset) and len(loader) == 0:
        raise ValueError(
            f"the data set is smaller than one batch: {len(dataset)} samples, "  # type: ignore[arg-type]
            f"micro_batch_size {loader.batch_size}; take a smaller micro-batch, or drop_last=False"
        )
    return loader
