"""The data loader that a configuration describes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, Dataset, IterableDataset, SequentialSampler

from autotune.config import TrainConfig
from autotune.training import SettingHasNoEffect, build_dataloader, loader_kwargs
from autotune.training.loader import stack

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


class Numbers(Dataset[int]):
    def __init__(self, count: int = 10) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


class RandomNumbers(Numbers):
    """What each of the three global generators gives."""

    def __getitem__(self, index: int) -> Any:
        return torch.tensor([torch.rand(()).item(), random.random(), np.random.random()])


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(10))


def test_arguments_without_workers_leave_out_what_torch_refuses() -> None:
    config = TrainConfig(micro_batch_size=4)
    assert loader_kwargs(config, CPU) == {"batch_size": 4, "num_workers": 0, "pin_memory": False}


def test_workers_persist_and_prefetch() -> None:
    arguments = loader_kwargs(TrainConfig(num_workers=2, prefetch_factor=4, pin_memory=True), CUDA)
    assert arguments == {
        "batch_size": 32,
        "num_workers": 2,
        "pin_memory": True,
        "persistent_workers": True,
        "prefetch_factor": 4,
    }
    assert "prefetch_factor" not in loader_kwargs(TrainConfig(num_workers=2), CPU)


@pytest.mark.parametrize(
    ("changes", "device", "message"),
    [
        ({"pin_memory": True}, CPU, "pin_memory: True has no effect: no accelerator"),
        ({"pin_memory": True}, MPS, "PyTorch does not pin memory for MPS"),
        ({"prefetch_factor": 2}, CPU, "prefetch_factor: 2 has no effect: no workers"),
    ],
)
def test_settings_without_effect_are_refused(changes: dict[str, Any], device: torch.device, message: str) -> None:
    with pytest.raises(SettingHasNoEffect, match=message):
        loader_kwargs(TrainConfig(**changes), device)


def epoch(**arguments: Any) -> list[int]:
    loader = build_dataloader(Numbers(), TrainConfig(micro_batch_size=3), device=CPU, **arguments)
    return [int(number) for batch in loader for number in batch]


def test_a_seed_fixes_the_order_and_the_last_short_batch_is_dropped() -> None:
    assert epoch(seed=1) == epoch(seed=1)
    assert epoch(seed=1) != epoch(seed=2)
    assert len(epoch(seed=1)) == 9
    assert epoch(shuffle=False, drop_last=False) == list(range(10))


def test_samplers_and_other_overrides_win() -> None:
    numbers = Numbers()
    assert epoch(sampler=SequentialSampler(numbers)) == list(range(9))
    assert epoch(batch_sampler=BatchSampler(SequentialSampler(numbers), 5, drop_last=False)) == list(range(10))
    assert len(epoch(batch_size=5)) == 10


def test_iterable_data_sets_are_not_shuffled() -> None:
    loader = build_dataloader(Stream(), TrainConfig(micro_batch_size=5), device=CPU)
    assert [batch.tolist() for batch in loader] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_a_data_set_may_bring_its_own_collation() -> None:
    class Summed(Numbers):
        def collate_fn(self, samples: list[int]) -> int:
            return sum(samples)

    config = TrainConfig(micro_batch_size=10)
    assert list(build_dataloader(Summed(), config, device=CPU)) == [45]
    assert [len(batch) for batch in build_dataloader(Summed(), config, device=CPU, collate_fn=list)] == [10]


def test_a_data_set_smaller_than_a_batch_is_refused() -> None:
    config = TrainConfig(micro_batch_size=32)
    with pytest.raises(ValueError, match="smaller than one batch: 10 samples, micro_batch_size 32"):
        build_dataloader(Numbers(), config, device=CPU)
    assert len(build_dataloader(Numbers(), config, device=CPU, drop_last=False)) == 1


def test_workers_draw_different_numbers_that_a_seed_repeats() -> None:
    def draw() -> torch.Tensor:
        config = TrainConfig(micro_batch_size=2, num_workers=2)
        return torch.stack(list(build_dataloader(RandomNumbers(4), config, device=CPU, seed=3)))

    first, second = draw(), draw()
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert len(first.flatten().unique()) == first.numel()


class Lengths(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:  # type: ignore[override]
        return {"tokens": torch.zeros(3 + index)}


def test_samples_that_do_not_fit_together_name_the_way_out() -> None:
    loader = build_dataloader(Lengths(), TrainConfig(micro_batch_size=4), device=torch.device("cpu"), shuffle=False)
    with pytest.raises(ValueError, match=r"tokens 3 and tokens 4; .* data\.collate in the spec, collate_fn= in Python"):
        next(iter(loader))


def test_a_failure_of_another_kind_stays_as_it_is() -> None:
    with pytest.raises(TypeError, match="default_collate"):
        stack([object(), object()])
