"""Facts about a workload, found by building it once: what the search has to know before its first trial."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sized
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset, IterableDataset

from autotune.errors import WorkloadError
from autotune.records import WorkloadFacts
from autotune.training import activation_checkpointing_refusal, input_shape, structure
from autotune.workload.prepared import Prepared
from autotune.workload.problems import blaming
from autotune.workload.streams import repeats_in_processes

_QUICK_S = 1.0
"""Seconds until the first sample of a stream. A slower stream is not started twice more to check whether its loader
processes repeat each other's samples."""


def workload_facts(prepared: Prepared, device: torch.device) -> WorkloadFacts:
    """Build model and optimizer, load a sample, train nothing. Raises WorkloadError for what the user has to fix."""
    dataset = prepared.dataset()
    samples = None if isinstance(dataset, IterableDataset) or not isinstance(dataset, Sized) else len(dataset)
    if samples == 0:
        raise WorkloadError("data: the data set is empty")
    model = prepared.model()
    batch_norm = any(isinstance(module, _BatchNorm) for module in model.modules())
    if prepared.spec.model.sync_batch_norm:
        _require_sync(batch_norm, device)
    prepared.optimizer(model)
    began_s = time.monotonic()
    sample, batch = _first(dataset, prepared)
    is_quick = time.monotonic() - began_s < _QUICK_S
    return WorkloadFacts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        dataset_samples=samples,
        repeats_in_processes=isinstance(dataset, IterableDataset) and is_quick and repeats_in_processes(dataset),
        input_shape=input_shape(batch),
        samples=_samples(sample),
        activation_checkpointing_refusal=activation_checkpointing_refusal(model),
        fused_optimizer_refusal=prepared.build_optimizer.fused_refusal(model, device),
        data_folder=_data_folder(prepared),
        batch_norm=batch_norm,
    )


def _require_sync(batch_norm: bool, device: torch.device) -> None:
    if device.type == "cpu":
        raise WorkloadError("model.sync_batch_norm: PyTorch's SyncBatchNorm runs on accelerators only; leave it out")
    if not batch_norm:
        raise WorkloadError("model.sync_batch_norm: the model has no BatchNorm; leave it out")


def _data_folder(prepared: Prepared) -> str | None:
    index = getattr(prepared.data, "index", None)  # not isinstance: importing the class takes a second
    return str(index.root) if index is not None else None


def _first(dataset: Dataset[Any], prepared: Prepared) -> tuple[Any, Any]:
    """The first sample, and a batch that contains only this sample."""
    with blaming("data: loading the first sample"):
        sample = next(iter(dataset)) if isinstance(dataset, IterableDataset) else dataset[0]
    with blaming("data.collate" if prepared.collate else "data: making a batch of the first sample"):
        return sample, prepared.collate_fn(dataset)([sample])


def _samples(sample: Any) -> str | None:
    return f"dicts: {structure(sample)}" if isinstance(sample, Mapping) else None
