"""Batches that lie ready for a step, and the loader that is drained, with PyTorch's own loader."""

from __future__ import annotations

import threading
from collections import UserDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, default_collate

from autotune.config import TrainConfig
from autotune.records import TrialRequest
from autotune.training import build_dataloader
from autotune.trial import sides
from autotune.trial.observed_loader import ObservedLoader
from autotune.trial.sides import CPU, HANDFUL, anew, drain_loader, ready_batches

SIZE = 8


class Counting(Dataset[torch.Tensor]):
    """Knows how many samples this process has loaded."""

    def __init__(self, samples: int = 1000) -> None:
        self.samples, self.loaded = samples, 0

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> torch.Tensor:
        self.loaded += 1
        return torch.full((3,), float(index))


class Stream(IterableDataset[int]):
    def __init__(self, samples: int = 10**6) -> None:
        self.samples, self.was_read = samples, False

    def __iter__(self) -> Iterator[int]:
        self.was_read = True
        return iter(range(self.samples))


class Unpicklable(Counting):
    def collate_fn(self, samples: list[torch.Tensor]) -> dict[str, Any]:
        return {"inputs": default_collate(samples), "lock": threading.Lock()}


def config(workers: int = 0, size: int = SIZE, **knobs: Any) -> TrainConfig:
    return TrainConfig(
        micro_batch_size=size, num_workers=workers, prefetch_factor=2 if workers else None, pin_memory=False, **knobs
    )


def ready(dataset: Any, shelf: Path, asked: TrainConfig | None = None) -> list[Any]:
    return ready_batches(dataset, asked or config(), CPU, 0, shelf)


@pytest.mark.parametrize("workers", [0, 1, 6])
def test_they_are_a_handful_of_the_data_sets_own(workers: int, tmp_path: Path) -> None:
    batches = ready(Counting(), tmp_path, config(workers))
    assert [batch.shape for batch in batches] == [(SIZE, 3)] * HANDFUL
    assert len({float(value) for batch in batches for value in batch[:, 0]}) == HANDFUL * SIZE, "no sample twice"


def test_nothing_more_than_they_need_is_loaded(tmp_path: Path) -> None:
    dataset = Counting()
    ready(dataset, tmp_path)
    assert dataset.loaded == HANDFUL * SIZE


def test_later_processes_find_them(tmp_path: Path) -> None:
    first, dataset = ready(Counting(), tmp_path), Counting()
    again = ready(dataset, tmp_path)
    assert dataset.loaded == 0
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_each_size_and_each_setting_of_the_users_knobs_has_its_own(tmp_path: Path) -> None:
    ready(Counting(), tmp_path)
    for other in (config(size=2 * SIZE), config(custom=(("image_size", 32),))):
        dataset = Counting()
        ready(dataset, tmp_path, other)
        assert dataset.loaded == HANDFUL * other.micro_batch_size


def test_what_cannot_be_pickled_is_loaded_each_time_and_leaves_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        dataset = Unpicklable()
        assert len(ready(dataset, tmp_path)) == HANDFUL
        assert dataset.loaded == HANDFUL * SIZE
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "_MOST_OF_DISK", 0.0)
    ready(Counting(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_loads_slowly_by_itself_takes_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "LONG_S", 0.0)
    assert len(ready(Counting(), tmp_path)) == sides.FEWEST


def test_a_small_data_set_gives_what_it_has(tmp_path: Path) -> None:
    assert len(ready(Counting(2 * SIZE + 1), tmp_path)) == 2
    with pytest.raises(ValueError, match="smaller than one batch"):
        ready(Counting(SIZE - 1), tmp_path / "none", config())


class Tokens(UserDict[str, torch.Tensor]):
    """Moves itself, as what tokenizers return does."""

    def to(self, device: torch.device) -> Tokens:
        self.data = {name: tensor.to(device) for name, tensor in self.data.items()}
        return self


def test_a_batch_can_be_trained_on_again_whatever_was_done_to_it() -> None:
    """Once what had been moved was moved no more, and what the loss had taken out was missing from the fifth step."""
    nothing = torch.device("meta")
    batch = {"tokens": Tokens(ids=torch.ones(2)), "pair": (torch.ones(2), [torch.ones(2)])}
    for device in (CPU, nothing):
        used = anew(batch, device)
        used["tokens"].to(nothing)
        used["pair"][1].append(used["tokens"].pop("ids"))
        used["pair"][0].add_(1.0)
        assert batch["tokens"]["ids"].device == CPU
        assert len(batch["pair"][1]) == 1
        assert batch["pair"][0].tolist() == [1.0 if device == CPU else 2.0] * 2, "on a device, copies are worked on"


def test_a_stream_is_not_read_by_the_training_process_where_others_can(tmp_path: Path) -> None:
    stream = Stream()
    ready(stream, tmp_path, config(2))
    assert not stream.was_read
    ready(stream, tmp_path / "none", config())
    assert stream.was_read


def test_a_data_set_without_one_full_batch_is_said_to_be_too_small(tmp_path: Path) -> None:
    short = Stream(SIZE - 1)
    with pytest.raises(ValueError, match="too few samples for a batch"):
        ready(short, tmp_path, config())


def test_a_stream_is_read_from_its_start(tmp_path: Path) -> None:
    batches = ready(Stream(), tmp_path, config(2))
    assert torch.cat(batches).tolist() == list(range(HANDFUL * SIZE))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_is_drained(workers: int) -> None:
    asked, dataset = config(workers), Counting()
    observed = ObservedLoader(asked)
    loader = build_dataloader(dataset, asked, device=CPU, seed=0, collate_fn=observed.observing(default_collate))
    rate = drain_loader(loader, observed, TrialRequest(config=asked, seed=0, time_limit_s=0.3, side="loader"))
    assert rate is not None
    assert rate.per_s > 0
    assert rate.fetch_s is not None
    assert rate.fetch_cpu_s is not None
    assert rate.slow_batches.batches >= 64
