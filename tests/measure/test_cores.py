"""What the kernel's coarse counters say of blocks of any length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from autotune.measure import cores
from autotune.measure.timed_block import TimedBlock


def blocks(seconds: float, loads: Sequence[float | None]) -> list[TimedBlock]:
    """Of so many seconds each, in which the loader's processes kept so many cores busy."""
    made = [SimpleNamespace(seconds=seconds, machine=SimpleNamespace(loader_load=load, own_load=2.0)) for load in loads]
    return [cast(TimedBlock, SimpleNamespace(block=block)) for block in made]


def test_a_tick_in_a_short_block_is_work_of_its_neighbours_too() -> None:
    """Half a core is busy: a tick of 10 ms falls into one block of 2 ms in ten."""
    loads = cores.loader_loads(blocks(0.002, [5.0 if number % 10 == 9 else 0.0 for number in range(1000)]))
    assert loads == [pytest.approx(0.5)] * 1000


def test_what_changes_from_one_fifth_of_a_second_to_the_next_is_seen() -> None:
    loads = cores.loader_loads(blocks(0.002, [1.0] * 100 + [0.0] * 250))
    assert loads[:100] == [pytest.approx(1.0)] * 100
    assert loads[100:] == [0.0] * 250


def test_long_blocks_keep_their_own() -> None:
    assert cores.loader_loads(blocks(0.3, [1.5, 0.25, 0.75])) == [1.5, 0.25, 0.75]


def test_where_one_was_not_counted_its_group_is_not() -> None:
    assert cores.loader_loads(blocks(0.05, [1.0, None, 1.0])) == [None] * 3


def test_a_tick_is_little_of_a_long_time() -> None:
    assert cores.counting_error(blocks(0.002, [0.0] * 30)) == pytest.approx(0.01 / (0.06 * 2))
    assert cores.counting_error(blocks(1.0, [0.0] * 10)) == pytest.approx(0.01 / 20)
    assert math.isclose(cores.counting_error(blocks(1e-6, [0.0])), 1.0)
