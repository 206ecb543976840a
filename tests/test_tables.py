"""Recorded tables as files: what is written is read again, and anything else is refused in words."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from support import worlds
from support.facts import cpu_facts, cuda_facts

from autotune.errors import EnvironmentFailure, SpecError
from autotune.tables import read_table, table_path, write_table


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = worlds.cpu_table()
    path = tmp_path / "deep" / "table.json.gz"
    write_table(path, table)
    assert read_table(path) == table
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_same_table_is_the_same_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one.json.gz", tmp_path / "other.json.gz"
    write_table(one, worlds.cpu_table())
    write_table(other, worlds.cpu_table())
    assert one.read_bytes() == other.read_bytes()


def test_its_place_says_on_what_it_was_recorded() -> None:
    assert table_path(Path("studies"), cpu_facts(), "vit").name.endswith("cores-vit.json.gz")
    assert table_path(Path("studies"), cuda_facts(), "vit") == Path("studies/recorded/test-gpu-vit.json.gz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no table at .*autotune sweep"),
        (b"not gzip", "cannot read"),
        (gzip.compress(b"{}"), "is not a table that this version reads"),
        (gzip.compress(json.dumps({"format": 2}).encode()), "format"),
        (gzip.compress(b"{" * 5), "is not a table"),
        (gzip.compress(json.dumps(list(range(1000))).encode())[:200], "cannot read"),
        (gzip.compress(b"{}" * 50)[:12] + b"\xff\xff" + gzip.compress(b"{}" * 50)[14:], "cannot read"),
    ],
    ids=["missing", "not gzip", "empty", "another format", "not JSON", "cut short", "damaged"],  # gzip writes the time
)
def test_what_is_no_table_is_refused_in_words(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "table.json.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match=message):
        read_table(path)


def test_a_place_that_cannot_be_written_is_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFailure):
        write_table(tmp_path / "file" / "table.json.gz", worlds.cpu_table())
