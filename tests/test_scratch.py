"""Temporary folders of processes that end as they should, that are killed, and that live."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autotune import scratch
from autotune.scratch import scratch_folder, socket_folder


def test_it_is_there_until_the_end_with_all_in_it(tmp_path: Path) -> None:
    with scratch_folder(tmp_path, "mine-") as folder:
        (folder / "some").mkdir()
        (folder / "some" / "file").touch()
        assert [path.name.startswith("mine-") for path in tmp_path.iterdir()] == [True]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [FileNotFoundError, OSError, KeyboardInterrupt])
def test_what_goes_wrong_inside_is_raised_and_nothing_is_left(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), scratch_folder(tmp_path, "mine-"):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_it_may_be_renamed(tmp_path: Path) -> None:
    with scratch_folder(tmp_path, "mine-") as folder:
        folder.rename(tmp_path / "kept")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_of_others_only_those_of_the_same_prefix_that_nobody_holds_are_removed(tmp_path: Path) -> None:
    for name in ("mine-abandoned", "other-abandoned"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / "mine-file").touch()
    with scratch_folder(tmp_path, "mine-") as first, scratch_folder(tmp_path, "mine-") as second:
        assert {path.name for path in tmp_path.iterdir()} == {first.name, second.name, "other-abandoned", "mine-file"}


def test_sockets_lie_in_it_where_their_paths_are_short_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_SHORT", tmp_path)
    limit = scratch._LONGEST - scratch._OF_A_SOCKET
    short, long = (Path("/" + "x" * (length - 1)) for length in (limit, limit + 1))
    with socket_folder(short, "mine-") as folder:
        assert folder == short
        assert list(tmp_path.iterdir()) == []
    with socket_folder(long, "mine-") as folder:
        assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_removed_before_it_is_locked_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    mkdtemp = scratch.tempfile.mkdtemp

    def make(**options: object) -> str:
        made.append(mkdtemp(**options))
        if len(made) == 1:
            Path(made[0]).rmdir()
        return str(made[-1])

    monkeypatch.setattr(scratch.tempfile, "mkdtemp", make)
    with scratch_folder(tmp_path, "mine-") as folder:
        assert len(made) == 2
        assert folder == Path(made[1])
        assert folder.exists()


def test_that_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import pathlib, time; from autotune.scratch import scratch_folder\n"
        f"with scratch_folder(pathlib.Path({str(tmp_path)!r}), 'mine-'): time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.iterdir()) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        (theirs,) = tmp_path.iterdir()
    finally:
        process.kill()
        process.wait()
    assert theirs.exists()
    with scratch_folder(tmp_path, "mine-"):
        assert not theirs.exists()


def test_pipes_and_links_of_others_are_passed_over(tmp_path: Path) -> None:
    kept = tmp_path / "kept" / "file"
    kept.parent.mkdir()
    kept.touch()
    (tmp_path / "mine-link").symlink_to(kept.parent)
    os.mkfifo(tmp_path / "mine-pipe")
    with scratch_folder(tmp_path, "mine-") as folder:
        assert folder.is_dir() and folder.stat().st_mode & 0o777 == 0o700
    assert kept.exists()
