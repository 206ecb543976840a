"""Study folders and tables that somebody else has packed: with pipes, devices and links, and files without an end."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.results import result

from autotune import tables
from autotune.emitted import read_emitted
from autotune.errors import EnvironmentFailure, SpecError
from autotune.export import Export, Source
from autotune.export.write import write
from autotune.store import StudyFolder, read_resolved_spec, write_atomically


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path / "study")
    folder.trials.mkdir(parents=True)
    return folder


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.fixture
def precious(tmp_path: Path) -> Iterator[Path]:
    """A file of the user's own, which nothing that happens changes."""
    path = tmp_path / "precious"
    path.write_text("precious")
    yield path
    assert path.read_text() == "precious"


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


@pytest.mark.parametrize("name", ["\x1b[2J", "[red]a", "$\\frac{$"])
def test_the_name_of_a_table_is_a_studys(tmp_path: Path, name: str) -> None:
    path = tmp_path / "table.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"format": 1, "name": name}).encode()))
    with pytest.raises(SpecError, match="is not a table that this version reads: name must be letters, digits"):
        tables.read_table(path)


def test_a_table_is_refused_in_a_line_of_printable_text(tmp_path: Path) -> None:
    path = tmp_path / "table.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"format": 1, "\x1b[2J\n": "\x1b[2J"}).encode()))
    with pytest.raises(SpecError) as caught:
        tables.read_table(path)
    assert str(caught.value).isprintable()


def test_nothing_is_written_through_a_link(study: StudyFolder, precious: Path) -> None:
    """The number of the process is easily guessed: in a container it is among the first hundred."""
    study.best.with_name(f".{study.best.name}.{os.getpid()}").symlink_to(precious)
    study.best.symlink_to(precious)
    write_atomically(study.best, "new")
    assert study.best.read_text() == "new" and not study.best.is_symlink()
    assert {path.name for path in study.path.iterdir()} == {"best.yaml", "trials"}


@pytest.mark.parametrize("name", ["log.txt", "trials"])
def test_neither_log_nor_records_of_a_study_are_links(study: StudyFolder, precious: Path, name: str) -> None:
    study.trials.rmdir()
    (study.path / name).symlink_to(precious if name == "log.txt" else precious.parent)
    study.write_spec({"name": "mine"})
    study.database.touch()
    with pytest.raises(EnvironmentFailure, match="it is a link to another place; remove the link"):
        study.open()


def test_exports_go_into_no_folder_that_a_link_leads_to(study: StudyFolder, tmp_path: Path) -> None:
    study.write_best(result())
    study.write_spec({"name": "mine"})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (study.path / "exports").symlink_to(elsewhere)
    made = Export(target="torch", files={"train.py": "import torch\n"}, about=(), notes=())
    with pytest.raises(SpecError, match="exports is a link to another folder; remove the link"):
        write(made, Source(emitted=read_emitted(study.path)))
    assert not list(elsewhere.iterdir())
