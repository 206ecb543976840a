"""Work that is shared out over forks: all of it is done, what goes wrong is raised, and no process is left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from autotune.workload.forks import for_each

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")


@pytest.fixture(autouse=True)
def _leaves_no_process() -> Iterator[None]:
    before = psutil.Process().children()
    yield
    assert psutil.Process().children() == before


def fail_at(item: int, how: Callable[[], None]) -> Callable[[int], None]:
    """Work of which one item fails, while the others would take an hour."""

    def do(one: int) -> None:
        if one != item:
            time.sleep(3600)
        how()

    return do


@pytest.mark.parametrize("processes", [0, 1, 2, 3, 20])
def test_every_item_is_done_once(tmp_path: Path, processes: int) -> None:
    def note(item: int) -> None:
        with (tmp_path / str(item)).open("a") as file:
            file.write(f"{os.getpid()}\n")

    for_each(range(10), note, processes=processes)
    written = {int(file.name): file.read_text().split() for file in tmp_path.iterdir()}
    assert sorted(written) == list(range(10))
    assert all(len(pids) == 1 for pids in written.values())
    writers = {pid for pids in written.values() for pid in pids}
    assert len(writers) == min(max(processes, 1), 10)
    assert (str(os.getpid()) in writers) is (processes <= 1)


def test_what_goes_wrong_in_one_is_raised_and_ends_all() -> None:
    def refuse() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device") as raised:
        for_each(range(3), fail_at(1, refuse), processes=3)
    assert raised.value.errno == 28


def test_an_error_without_a_number_keeps_its_words() -> None:
    def refuse() -> None:
        raise OSError("encoder error -2 when writing image file")

    with pytest.raises(OSError, match="encoder error -2"):
        for_each(range(2), fail_at(1, refuse), processes=2)


def test_one_that_is_killed_is_noticed() -> None:
    with pytest.raises(ChildProcessError, match="one of 2 processes ended with exit code -9"):
        for_each(range(2), lambda item: os.kill(os.getpid(), signal.SIGKILL) if item else None, processes=2)


def test_a_bug_is_shown_and_noticed(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ChildProcessError, match="exit code 1"):
        for_each(range(2), lambda item: print(1 // item), processes=2)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_they_end_with_the_process_that_forked_them(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, time; from autotune.workload.forks import for_each\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "for_each(range(100_000), lambda _: ((folder / str(os.getpid())).touch(), time.sleep(0.01)), processes=3)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    workers = [int(file.name) for file in tmp_path.iterdir()]
    assert len(workers) == 3
    while any(map(psutil.pid_exists, workers)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(psutil.pid_exists, workers))
