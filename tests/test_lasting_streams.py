"""stdout and stderr that are closed, full, or that nobody reads any more: what a command does, and its exit code."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from support.results import result
from support.simulated_cli import WAIT
from test_cli import SPEC

from autotune.spec import dump_yaml

_TESTS = Path(__file__).parent
_COMMAND = f"{sys.executable} -m support.simulated_cli"
_FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    paths = [str(_TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(SPEC))
    return tmp_path


def shell(command: str) -> tuple[int, str, str]:
    """Exit code of `command`, and what came on the streams that it leaves alone."""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "streams",
    [
        ">&-",
        "2>&-",
        "<&- >&- 2>&-",
        pytest.param(">/dev/full", marks=_FULL),
        pytest.param("2>/dev/full", marks=_FULL),
        "| true; exit ${PIPESTATUS[0]}",
        "2> >(head -n 1 >/dev/null)",
    ],
)
def test_a_search_goes_on_and_its_result_is_written(folder: Path, streams: str) -> None:
    code, _, err = shell(f"{_COMMAND} search mine.yaml {streams}")
    assert code == 0, err
    assert "Traceback" not in err
    best = yaml.safe_load((folder / "studies" / "mine" / "best.yaml").read_text())
    assert best["stability"]["verdict"] == "stable"


@pytest.mark.slow
def test_what_a_closed_descriptor_is_free_for_is_no_file_of_the_study(folder: Path) -> None:
    """A log that gets descriptor 2 would take all that is printed as an error."""
    code, _, _ = shell(f"{_COMMAND} search mine.yaml --events events.txt >&- 2>&-")
    assert code == 0
    for line in (folder / "events.txt").read_text().splitlines():
        assert line.startswith('{"event": ')


@pytest.mark.slow
def test_a_terminal_that_hangs_up_is_an_interruption(folder: Path) -> None:
    ready = folder / "ready"
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ[WAIT] = str(ready)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
        os.execv(sys.executable, [*_COMMAND.split(), "search", "mine.yaml"])
    ends_s = time.monotonic() + 60
    while not ready.exists() and time.monotonic() < ends_s:
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 65536)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert (folder / "studies" / "mine" / "best.yaml").exists()


@pytest.fixture
def shown(folder: Path) -> Path:
    study = folder / "studies" / "mine"
    study.mkdir(parents=True)
    (study / "study.db").touch()
    (study / "best.yaml").write_text(dump_yaml(result()))
    return study


@pytest.mark.parametrize(
    ("streams", "code"),
    [
        (">&-", 0),
        ("| true; exit ${PIPESTATUS[0]}", 0),
        ("2>&-", 0),
        pytest.param(">/dev/full", 4, marks=_FULL),
    ],
)
@pytest.mark.parametrize("command", ["show mine", "schema"])
def test_what_is_only_shown_is_4_where_the_disk_is_full(shown: Path, command: str, streams: str, code: int) -> None:
    ended, _, err = shell(f"{_COMMAND} {command} {streams}")
    assert ended == code, err
    assert err == ("error: cannot write to stdout: No space left on device\n" if code else "")


@pytest.mark.parametrize("streams", ["2>&-", pytest.param("2>/dev/full", marks=_FULL)])
def test_an_error_that_nobody_can_read_keeps_its_code(folder: Path, streams: str) -> None:
    assert shell(f"{_COMMAND} show nothing {streams}")[0] == 2
    assert shell(f"{_COMMAND} nothing {streams}")[0] == 2


def test_characters_that_the_terminal_lacks_are_written_in_others(shown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    code, out, err = shell(f"{_COMMAND} show mine")
    assert (code, err) == (0, "")
    assert "\\xd7" in out
