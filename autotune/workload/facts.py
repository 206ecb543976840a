"""What a workload is, found out by building it once: what the search has to know before its first trial."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset, IterableDataset, default_collate

from autotune.errors import WorkloadError
from autotune.records import WorkloadFacts
from autotune.training import activation_checkpointing_refusal, fused_optimizer_refusal
from autotune.workload.prepared import Prepared
from autotune.workload.problems import blaming


def workload_facts(prepared: Prepared, device: torch.device) -> WorkloadFacts:
    """Builds the model, loads one sample, trains nothing. Raises WorkloadError for what the user has to mend."""
    dataset = prepared.dataset()
    samples = None if isinstance(dataset, IterableDataset) or not isinstance(dataset, Sized) else len(dataset)
    if samples == 0:
        raise WorkloadError("data: the data set is empty")
    model = prepared.model()
    batch_norm = any(isinstance(module, _BatchNorm) for module in model.modules())
    if prepared.spec.model.sync_batch_norm:
        _require_sync(batch_norm, device)
    return WorkloadFacts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        dataset_samples=samples,
        input_shape=_input_shape(dataset),
        activation_checkpointing_refusal=activation_checkpointing_refusal(model),
        fused_optimizer_refusal=fused_optimizer_refusal(prepared.optimizer_class, device),
        data_folder=_data_folder(prepared),
        batch_norm=batch_norm,
    )


def _require_sync(batch_norm: bool, device: torch.device) -> None:
    if device.type == "cpu":
        raise WorkloadError("model.sync_batch_norm: PyTorch's SyncBatchNorm runs on accelerators only; leave it out")
    if not batch_norm:
        raise WorkloadError("model.sync_batch_norm: the model has no BatchNorm; leave it out")


def _data_folder(prepared: Prepared) -> str | None:
    index = getattr(prepared.data, "index", None)  # not by its class: importing that takes a second
    return str(index.root) if index is not None else None


def _input_shape(dataset: Dataset[Any]) -> tuple[int, ...] | None:
    """Shape of the first tensor of a batch, without the batch dimension; None when it begins with something else."""
    with blaming("data: loading the first sample"):
        sample = next(iter(dataset)) if isinstance(dataset, IterableDataset) else dataset[0]
        batch = getattr(dataset, "collate_fn", default_collate)([sample])
    first = batch[0] if isinstance(batch, tuple | list) and batch else batch
    return tuple(first.shape[1:]) if isinstance(first, Tensor) else None
