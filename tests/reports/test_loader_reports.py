"""Public bug reports about data loaders, tried on ours: what each of them asks for is what happens here."""

from __future__ import annotations

from collections import UserDict, namedtuple
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from autotune.config import TrainConfig
from autotune.records import TrialStatus
from autotune.training import build_dataloader
from autotune.training.batch import move_batch
from autotune.trial.failure import classify
from autotune.trial.loader_memory import LoaderMemory
from autotune.workload.streams import repeats_in_processes

CPU = torch.device("cpu")
MIB = 1 << 20


class Drawing(Dataset[int]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> int:
        return int(np.random.randint(1 << 30))


def test_numpy_draws_other_numbers_in_each_process_and_each_epoch() -> None:
    # https://github.com/pytorch/pytorch/issues/5059: all processes drew the same numbers, in each epoch again.
    config = TrainConfig(micro_batch_size=4, num_workers=2)
    loader = build_dataloader(Drawing(), config, device=CPU, seed=0)
    drawn = [int(number) for _ in range(2) for batch in loader for number in batch]
    assert len(set(drawn)) == 128


class Texts(Dataset[int]):
    """A list of Python objects: to read one counts references to it, which copies its page into the process."""

    def __init__(self, samples: int) -> None:
        self.texts = [str(number).zfill(200) for number in range(samples)]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> int:
        return len(self.texts[index])


def test_memory_that_processes_copy_by_reading_is_counted() -> None:
    # https://github.com/pytorch/pytorch/issues/13246: the trial's own process stays as it is while the machine runs out
    # of memory. Twice 40,000 texts of 249 bytes: 19 MiB.
    config = TrainConfig(micro_batch_size=1000, num_workers=2)
    batches = iter(build_dataloader(Texts(80_000), config, device=CPU, seed=0))
    next(batches)
    memory = LoaderMemory(psutil.Process().children(recursive=True), clock=lambda: 0.0)
    before = held_at_last(memory)
    for _ in batches:
        pass
    assert held_at_last(memory) - before > 12 * MIB


def held_at_last(memory: LoaderMemory) -> int:
    """After a close look at each of the two."""
    memory.read()
    held = memory.read()
    assert held is not None
    return held


class Stream(IterableDataset[int]):
    def __init__(self, *, shares: bool, of: int = 10) -> None:
        self.shares, self.of = shares, of

    def __iter__(self) -> Iterator[int]:
        worker = get_worker_info()
        if worker is None or not self.shares:
            return iter(range(self.of))
        return iter(range(worker.id, self.of, worker.num_workers))


def test_a_stream_that_gives_each_process_all_of_its_samples_is_noticed() -> None:
    # https://github.com/pytorch/pytorch/issues/30599, https://github.com/huggingface/datasets/issues/3423: with four
    # processes an epoch holds every sample four times.
    assert repeats_in_processes(Stream(shares=False))
    assert not repeats_in_processes(Stream(shares=True))
    assert not repeats_in_processes(Stream(shares=False, of=1)), "one sample tells nothing"


Pair = namedtuple("Pair", ["image", "label"])


class Batch(UserDict[str, torch.Tensor]):
    """A batch of a kind of its own."""


@pytest.mark.parametrize(
    "batch", [Pair(torch.ones(2, 3), torch.zeros(2)), Batch(image=torch.ones(2, 3), label=torch.zeros(2))]
)
def test_a_batch_stays_of_its_kind(batch: Any) -> None:
    # https://github.com/pytorch/pytorch/issues/14613, https://github.com/pytorch/pytorch/issues/32150: named tuples
    # came out as lists, mappings of one's own as dicts.
    moved = move_batch(batch, torch.device("meta"))
    assert type(moved) is type(batch)
    image = moved.image if isinstance(moved, Pair) else moved["image"]
    assert image.device.type == "meta"


def test_a_process_that_finds_no_room_in_dev_shm_has_run_out_of_memory() -> None:
    # https://github.com/pytorch/pytorch/issues/5040: a smaller configuration fits, so that this is no crash.
    error = RuntimeError(
        "DataLoader worker (pid 13) is killed by signal: Bus error. It is possible that dataloader's workers are out "
        "of shared memory. Please try to raise your shared memory limit."
    )
    assert classify(error) is TrialStatus.OOM
