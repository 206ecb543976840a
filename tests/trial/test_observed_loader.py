"""How far the loader's processes are ahead of the loop, and when that has stopped flattering the loop."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from autotune.trial.stock import Stock
from torch.utils.data import DataLoader


class Queue:
    """A loader and a loop, batch by batch, around a stock of 2 × 4 batches."""

    def __init__(self, num_workers: int = 2, prefetch_factor: int = 4) -> None:
        self.stock = Stock(num_workers=num_workers, prefetch_factor=prefetch_factor)
        self._collate = self.stock.counting(list)

    def load(self, batches: int) -> None:
        for _ in range(batches):
            self._collate([])

    def take(self, batches: int = 1) -> None:
        for _ in range(batches):
            self.stock.take()

    @property
    def spent(self) -> bool:
        return self.stock.head_start_spent


def test_capacity_is_what_the_loader_may_work_ahead() -> None:
    assert Stock(num_workers=2, prefetch_factor=8).capacity == 16


def test_nothing_is_spent_before_the_first_queue_has_been_taken() -> None:
    queue = Queue()
    queue.load(8)
    queue.take(7)
    queue.load(7)
    assert not queue.spent
    queue.take()
    queue.load(1)
    assert queue.spent


@pytest.mark.parametrize("behind", [0, 1])
def test_a_loop_that_waits_for_the_loader_has_spent_it(behind: int) -> None:
    queue = Queue()
    queue.load(20 + behind)
    queue.take(20)
    assert queue.spent


@pytest.mark.parametrize(("level", "spent"), [(1, True), (2, False), (5, False), (6, True), (8, True)])
def test_a_queue_between_empty_and_full_is_on_its_way(level: int, spent: bool) -> None:
    """Full within one batch of each process, which is what is being loaded; empty within the one that is awaited."""
    queue = Queue()
    queue.load(20 + level)
    queue.take(20)
    assert queue.spent is spent


def test_a_level_that_stays_in_between_is_waited_for_no_longer_than_twenty_queues() -> None:
    queue = Queue()
    queue.load(4)
    for _ in range(159):
        queue.load(1)
        queue.take()
    assert not queue.spent
    queue.load(1)
    queue.take()
    assert queue.spent


def test_a_slow_loader_spends_its_start_only_when_the_queue_has_run_empty() -> None:
    """Loading takes four times as long as a step: 16 batches ahead last about 21 steps."""
    queue = Queue(num_workers=2, prefetch_factor=8)
    queue.load(16)
    steps = 0
    while not queue.spent:
        queue.take()
        steps += 1
        if steps % 4 == 0:
            queue.load(1)
    assert 16 / (1 - 1 / 4) - 3 <= steps <= 16 / (1 - 1 / 4) + 1


def test_a_fast_loader_spends_it_after_one_queue() -> None:
    queue = Queue(num_workers=2, prefetch_factor=8)
    queue.load(16)
    for _ in range(16):
        assert not queue.spent
        queue.take()
        queue.load(1)
    assert queue.spent


def test_counting_changes_nothing_about_a_batch() -> None:
    assert Stock(num_workers=1, prefetch_factor=2).counting(sum)([1, 2, 3]) == 6


def test_a_batch_that_cannot_be_collated_is_not_counted() -> None:
    stock = Stock(num_workers=1, prefetch_factor=1)
    with pytest.raises(TypeError):
        stock.counting(sum)(["a"])
    stock.take()
    stock.take()
    assert stock._finished.value == 0


def test_what_loader_processes_finish_is_seen_here() -> None:
    stock = Stock(num_workers=2, prefetch_factor=2)
    collate: Any = stock.counting(list)
    loader: DataLoader[Any] = DataLoader(range(12), batch_size=2, num_workers=2, prefetch_factor=2, collate_fn=collate)  # type: ignore[arg-type]
    assert sorted(number for batch in loader for number in batch) == list(range(12))
    assert stock._finished.value == 6


def test_the_count_is_shared_by_inheritance_only() -> None:
    """Spawned loader processes get it while they start; anybody else would count into a copy."""
    with pytest.raises(RuntimeError, match="inheritance"):
        pickle.dumps(Stock(num_workers=1, prefetch_factor=2).counting(list))
