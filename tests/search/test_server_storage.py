"""A study on a database server: seen from elsewhere while it runs, and not lost with a connection."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from support.bench import Bench
from support.postgres import PASSWORD, Server, find_binaries, running

from autotune.errors import EnvironmentFailure, SpecError, StudyMismatch
from autotune.records import SearchResult, TrialRecord
from autotune.search import Listener, on_server, open_study
from autotune.search.storage import persistently, read_url, stored_study
from autotune.search.verify import read_origin

pytestmark = pytest.mark.slow
needs_server = pytest.mark.skipif(find_binaries() is None, reason="PostgreSQL is not installed")
LOOK = """
import json, sys, optuna
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.load_study(study_name=sys.argv[1], storage=sys.argv[2])
print(json.dumps([str(trial.state.name) for trial in study.get_trials()]))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Not in pytest's folder, which each run of pytest closes to other users such as the server's."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as server:
        yield server


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)


def run(bench: Bench, url: str | None, *, budget: str = "1m", on_trial: Any = None) -> SearchResult:
    listener = Listener(on_trial=on_trial) if on_trial else Listener()
    opened = open_study if url is None else on_server(url)
    return bench.search(
        bench.backend(noise=0.002, busy=0.0), on=listener, opened=opened, budget=budget, strategy={"name": "tpe"}
    )


def seen_from_elsewhere(bench: Bench, server: Server) -> list[str]:
    """The states of the trials, as another process reads them with Optuna alone."""
    remote = bench.folder.read_remote()
    assert remote is not None
    address = server.url().replace("postgresql://", "postgresql+psycopg://")
    done = subprocess.run(
        [sys.executable, "-c", LOOK, remote.study, address], capture_output=True, text=True, check=True
    )
    states: list[str] = json.loads(done.stdout)
    return states


def told(bench: Bench) -> int:
    return sum(record.optuna_trial is not None for record in bench.folder.read_trials())


@needs_server
def test_another_terminal_sees_the_study_while_it_runs(bench: Bench, server: Server) -> None:
    views: list[tuple[int, list[str]]] = []

    def look(record: TrialRecord) -> None:
        if record.number in (2, 4):
            views.append((record.number, seen_from_elsewhere(bench, server)))

    result = run(bench, server.url(), budget="2m", on_trial=look)
    assert [states for _, states in views] == [["COMPLETE"] * (number + 1) for number, _ in views]
    assert len(seen_from_elsewhere(bench, server)) == told(bench)
    assert result.best["speedup"]["ratio"] > 1.5
    assert not bench.folder.database.exists()
    assert bench.folder.best.exists(), "all else lies in the folder"
    assert PASSWORD not in bench.folder.remote.read_text()
    with stored_study(bench.folder, writable=False) as study:
        assert study.user_attrs["identity"]
    assert read_origin(bench.folder) == bench.folder.path.parent


@needs_server
def test_two_studies_share_a_server(tmp_path: Path, server: Server) -> None:
    benches = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        benches.append(Bench(tmp_path / name))
        run(benches[-1], server.url())
    first, second = (bench.folder.read_remote() for bench in benches)
    assert first is not None and second is not None
    assert first.study != second.study
    for bench in benches:
        assert len(seen_from_elsewhere(bench, server)) == told(bench)


@needs_server
def test_connections_dropped_in_the_middle_are_survived(bench: Bench, server: Server) -> None:
    dropped: list[int] = []
    run(bench, server.url(), on_trial=lambda _record: dropped.append(server.drop_connections()))
    assert sum(dropped) >= told(bench), "before each trial was told, or asked for"
    assert seen_from_elsewhere(bench, server) == ["COMPLETE"] * told(bench)


@needs_server
def test_a_server_that_is_away_for_two_seconds_is_waited_for(bench: Bench, server: Server) -> None:
    back = threading.Thread(target=lambda: (time.sleep(2), server.start()))

    def go_away(record: TrialRecord) -> None:
        if record.number == 3:
            server.stop()
            back.start()

    run(bench, server.url(), on_trial=go_away)
    back.join()
    states = seen_from_elsewhere(bench, server)
    assert states.count("COMPLETE") == told(bench)
    assert "RUNNING" not in states


@needs_server
def test_the_study_goes_on_where_it_is(bench: Bench, server: Server) -> None:
    run(bench, server.url())
    before = told(bench)
    run(bench, None, budget="3m")
    assert told(bench) > before
    assert len(seen_from_elsewhere(bench, server)) == told(bench)
    with pytest.raises(StudyMismatch, match=r"keeps its study at postgresql://autotune@127\.0\.0\.1"):
        run(bench, "postgresql://somebody@elsewhere/studies")


@needs_server
def test_a_wrong_password_says_where_passwords_are_kept(
    bench: Bench, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(EnvironmentFailure, match=r"PGPASSWORD or ~/\.pgpass"):
        run(bench, server.url(password=False))
    assert not bench.folder.exists(), "it may begin again, anywhere"
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    run(bench, server.url(password=False))


def test_a_study_in_its_file_stays_there(bench: Bench) -> None:
    run(bench, None)
    with pytest.raises(StudyMismatch, match=r"study\.db.*--fresh"):
        run(bench, "postgresql://autotune@127.0.0.1:1/studies")


def test_nobody_listens(bench: Bench) -> None:
    with pytest.raises(EnvironmentFailure, match=r"cannot use postgresql://autotune@127\.0\.0\.1:1/studies"):
        run(bench, "postgresql://autotune:secret@127.0.0.1:1/studies")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study.db", "is not a database address"),
        ("sqlite:///study.db", "every study has SQLite already"),
        ("", "not a database"),
    ],
)
def test_what_is_no_server_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read_url(text)


def test_a_missing_driver_says_what_to_install(bench: Bench) -> None:
    with pytest.raises(EnvironmentFailure, match=r"not installed.*pip install 'autotune-train\[postgres\]'"):
        run(bench, "postgresql+nodriver://autotune@127.0.0.1/studies")


def test_a_damaged_address_says_what_belongs_there(bench: Bench) -> None:
    bench.folder.path.mkdir()
    bench.folder.remote.write_text(yaml.safe_dump(["nonsense"]))
    with pytest.raises(EnvironmentFailure, match=r"storage\.yaml is damaged"):
        run(bench, None)


def test_what_is_no_lost_connection_is_not_tried_again() -> None:
    tries: list[int] = []

    def fail() -> None:
        tries.append(1)
        raise optuna.exceptions.StorageInternalError("the schema is another one")

    with pytest.raises(optuna.exceptions.StorageInternalError):
        persistently(fail)
    assert len(tries) == 1
