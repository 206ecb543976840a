"""Whether an iterable data set divides its samples among the processes of a loader."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

_LOOKED_AT = 2
"""How many samples of each process are compared: one sample could be equal only because all samples are."""
_PATIENCE_S = 5.0


def repeats_in_processes(dataset: IterableDataset[Any]) -> bool:
    """Whether two loader processes begin with the same samples, because each reads all of the data: an epoch then
    contains every sample once per process. False if this cannot be seen: the stream shuffles, or fails here."""
    loader = DataLoader(dataset, batch_size=None, num_workers=2, timeout=_PATIENCE_S)
    with contextlib.suppress(Exception):
        samples = [sample for sample, _ in zip(loader, range(2 * _LOOKED_AT), strict=False)]
        first, second = samples[::2], samples[1::2]
        return len(samples) == 2 * _LOOKED_AT and _same(first, second) and not _same(first[0], first[1])
    return False


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
