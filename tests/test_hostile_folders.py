"""Study folders and tables that somebody else has packed: pipes, devices and links in them, and files without an end."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from autotune import tables
from autotune.errors import EnvironmentFailure, SpecError
from autotune.store import StudyFolder, read_resolved_spec


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path / "study")
    folder.trials.mkdir(parents=True)
    return folder


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [pipe, device])
def test_what_is_no_file_is_refused_and_not_waited_for(study: StudyFolder, make: Callable[[Path], None]) -> None:
    reads: dict[Path, Callable[[], object]] = {
        study.best: study.read_best,
        study.identity: study.read_identity,
        study.trials / "0000.json": study.read_trials,
        study.spec: lambda: read_resolved_spec(study),
    }
    for path, read in reads.items():
        make(path)
        with pytest.raises(EnvironmentFailure, match=r"^[^\n]*it is not a regular file[^\n]*$"):
            read()


def test_a_pipe_in_place_of_the_log_is_not_waited_for(study: StudyFolder) -> None:
    pipe(study.log)
    assert not study.is_running()


def test_a_table_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MOST_BYTES", 2_000_000)
    path = tmp_path / "table.json.gz"
    path.write_bytes(gzip.compress(b" " * 2_000_001))
    with pytest.raises(SpecError, match=r"^cannot read .*: over 2 MB long; give a table"):
        tables.read_table(path)


def test_a_table_is_refused_in_a_line_of_printable_text(tmp_path: Path) -> None:
    path = tmp_path / "table.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"format": 1, "\x1b[2J\n": "\x1b[2J"}).encode()))
    with pytest.raises(SpecError) as caught:
        tables.read_table(path)
    assert str(caught.value).isprintable()
