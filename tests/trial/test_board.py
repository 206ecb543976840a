"""Who of several ranks is said to hang, from what they note down."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.trial.board import Board, Diary, Entry, Vigil


def notes(*ranks: tuple[int, int, float]) -> list[Entry]:
    """(forward passes, steps, when) of each rank."""
    return [Entry(pid=100 + place, forwards=a, steps=b, at_s=at_s) for place, (a, b, at_s) in enumerate(ranks)]


def test_a_rank_that_others_wait_for_hangs_after_five_seconds() -> None:
    vigil = Vigil()
    entries = notes((7, 6, 10.0), (6, 6, 9.9))
    assert vigil.culprits(entries, 14.8) == []
    assert vigil.culprits(entries, 15.1) == [1]


def test_a_rank_that_works_on_is_not_said_to_hang_however_far_behind() -> None:
    vigil = Vigil()
    for second in range(10, 60):
        assert vigil.culprits(notes((80, 8, 10.0), (second, 8, float(second))), second + 0.5) == []


def test_what_takes_long_for_all_may_take_long_for_each() -> None:
    """A compilation of 20 s: that of the other rank may take up to three times as long."""
    vigil = Vigil()
    vigil.culprits(notes((0, 0, 0.0), (0, 0, 0.0)), 0.1)
    compiled = notes((1, 0, 20.0), (0, 0, 0.0))
    assert vigil.culprits(compiled, 20.1) == []
    assert vigil.culprits(compiled, 79.0) == []
    assert vigil.culprits(compiled, 80.5) == [1]


def test_none_hangs_before_all_have_begun() -> None:
    assert Vigil().culprits([Entry(pid=100, forwards=3, steps=3, at_s=1.0), Entry()], 100.0) == []


def test_all_hang_when_none_moves_once_all_have_trained() -> None:
    vigil = Vigil()
    assert vigil.culprits(notes((6, 6, 10.0), (6, 6, 10.0)), 15.1) == [0, 1]
    assert Vigil().culprits(notes((1, 0, 10.0), (1, 0, 10.0)), 15.1) == [], "the first step may compile"


def test_a_diary_is_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "board"
    diary = Diary(Board(path, 3), 1, pid=42)
    diary.forward()
    diary.forward()
    diary.step()
    other = Board(path, 3).read()
    assert [entry.pid for entry in other] == [0, 42, 0]
    assert (other[1].forwards, other[1].steps) == (2, 1)
    assert other[1].at_s > 0
    assert diary.steps == 1


@pytest.mark.parametrize("rank", [0, 2])
def test_each_writes_its_own_entry_only(tmp_path: Path, rank: int) -> None:
    board = Board(tmp_path / "board", 3)
    Diary(board, rank, pid=7)
    assert [bool(entry.pid) for entry in board.read()] == [place == rank for place in range(3)]
