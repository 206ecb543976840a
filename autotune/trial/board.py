"""A file in memory that the ranks of a trial share, in addition to their collectives: each notes its progress there.

This shows, from outside, which rank keeps the others waiting: ranks that wait inside a collective report nothing.
"""

from __future__ import annotations

import mmap
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_ENTRY = struct.Struct("=qqqd")
_PATIENCE_S = 5.0
"""Shortest time before a rank counts as hanging; a loader that begins an epoch, or a garbage collection, takes less."""
_TIMES_LONGEST = 3.0
"""Factor on the longest pause of any rank so far, such as a compilation."""


class Entry(NamedTuple):
    """The entry of one rank."""

    pid: int = 0
    """0: the rank has not begun."""
    forwards: int = 0
    steps: int = 0
    at_s: float = 0.0
    """`time.monotonic()` of the last note."""


class Board:
    """The entries of all ranks; each rank writes only its own."""

    def __init__(self, path: Path, ranks: int) -> None:
        """`path`: the file; it is created if it does not exist."""
        self._ranks = ranks
        with path.open("ab") as file:
            file.truncate(_ENTRY.size * ranks)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    def write(self, rank: int, entry: Entry) -> None:
        _ENTRY.pack_into(self._map, rank * _ENTRY.size, *entry)

    def read(self) -> list[Entry]:
        return [Entry(*_ENTRY.unpack_from(self._map, rank * _ENTRY.size)) for rank in range(self._ranks)]


@dataclass
class Vigil:
    """Detects a rank that hangs, by looking at the board repeatedly.

    A rank hangs if others wait for it and it has written nothing for much longer than any rank ever did before. Once
    all ranks have trained a step, all of them hang if none writes anything any more.
    """

    longest_s: float = 0.0
    _last: dict[int, Entry] = field(default_factory=dict)

    def culprits(self, entries: list[Entry], now_s: float) -> list[int]:
        """The ranks that hang."""
        begun = [entry for entry in entries if entry.pid]
        for rank, entry in enumerate(entries):
            before = self._last.get(rank)
            if before is not None and before.pid and entry.at_s > before.at_s:
                self.longest_s = max(self.longest_s, entry.at_s - before.at_s)
            self._last[rank] = entry
        if len(begun) < len(entries):
            return []
        patience_s = max(_PATIENCE_S, _TIMES_LONGEST * self.longest_s)
        silent = [now_s - entry.at_s > patience_s for entry in entries]
        furthest = max(entry.forwards for entry in entries)
        behind = [rank for rank, entry in enumerate(entries) if entry.forwards < furthest and silent[rank]]
        waited_s = now_s - max(entry.at_s for entry in entries if entry.forwards == furthest)
        if behind and waited_s > patience_s:
            return behind
        all_trained = min(entry.steps for entry in entries) > 0
        return list(range(len(entries))) if all(silent) and all_trained else []


class Diary:
    """Writes the entry of one rank."""

    def __init__(self, board: Board, rank: int, pid: int) -> None:
        self._board = board
        self._rank = rank
        self._entry = Entry(pid=pid)
        self._note()

    @property
    def steps(self) -> int:
        return self._entry.steps

    def forward(self) -> None:
        self._note(forwards=self._entry.forwards + 1)

    def step(self) -> None:
        self._note(steps=self._entry.steps + 1)

    def _note(self, **changes: int) -> None:
        self._entry = self._entry._replace(at_s=time.monotonic(), **changes)
        self._board.write(self._rank, self._entry)
