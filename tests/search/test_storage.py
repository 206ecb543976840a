"""Optuna's storage in a file: what of it is imported ahead, whose it may be, and which addresses are refused."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from support.bench import Bench
from support.results import result

from autotune.errors import EnvironmentFailure, SpecError, StudyMismatch
from autotune.export import read_source
from autotune.search import storage
from autotune.search.storage import read_url, stored_study
from autotune.store import RemoteStudy, StudyFolder


@pytest.mark.parametrize(
    ("opening", "imported"), [("storage.open_study", True), ("lambda folder, sampler: None", False)]
)
def test_what_opening_a_file_needs_is_imported_while_pytorch_is_loaded(opening: str, imported: bool) -> None:
    script = (
        "import sys; from autotune.search import storage\n"
        "before = set(sys.modules)\n"
        f"storage.warm_up({opening})\n"
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ({"optuna.storages._rdb.models", "alembic.script"} <= set(done.stdout.split())) is imported


def an_application(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table invoices (number)")


def of_a_server(path: Path) -> None:
    """In the mode in which autotune keeps its own, the last writes in the log beside it."""
    an_application(path.with_name("original.db"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table invoices (number)")
        connection.commit()
        for name in ("study.db", "study.db-wal"):  # as after a kill -9
            shutil.copy(path.with_name(name), path.with_name(f"{name}.kept"))
    for name in ("study.db", "study.db-wal"):
        path.with_name(f"{name}.kept").rename(path.with_name(name))


def with_code(path: Path) -> None:
    """Optuna's own tables, and a trigger that changes what a search writes."""
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="autotune")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create trigger t after insert on trials begin delete from trial_values; end")
        connection.commit()


def of_optuna(path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="mine")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("make", [an_application, of_a_server, of_optuna, with_code])
def test_a_database_of_somebody_else_is_refused_untouched(
    tmp_path: Path, make: Callable[[Path], None], fresh: bool
) -> None:
    bench = Bench(tmp_path, on_disk=True)
    bench.folder.path.mkdir()
    make(bench.folder.database)
    before = {path.name: path.read_bytes() for path in bench.folder.path.iterdir() if path.suffix != ".db-shm"}
    with pytest.raises(StudyMismatch, match=r"study\.db is not a database of autotune: it holds .*--out"):
        bench.search(bench.backend(), fresh=fresh)
    after = {path.name: path.read_bytes() for path in bench.folder.path.iterdir() if path.suffix != ".db-shm"}
    assert after == before


def test_a_file_that_is_no_database_is_refused_untouched(tmp_path: Path) -> None:
    bench = Bench(tmp_path, on_disk=True)
    bench.folder.path.mkdir()
    bench.folder.database.write_text("my notes")
    with pytest.raises(EnvironmentFailure, match="file is not a database"):
        bench.search(bench.backend())
    assert bench.folder.database.read_text() == "my notes"


def test_an_empty_database_without_records_is_one_that_was_just_begun(tmp_path: Path) -> None:
    bench = Bench(tmp_path, on_disk=True)
    bench.folder.path.mkdir()
    bench.folder.database.touch()
    assert bench.search(bench.backend()).best["stability"]["verdict"] == "stable"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bench = Bench(tmp_path_factory.mktemp("finished"), on_disk=True)
    bench.search(bench.backend())
    return bench.folder.path.parent


@pytest.fixture
def done(finished: Path, tmp_path: Path) -> Bench:
    """A copy of a finished study."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return Bench(tmp_path, on_disk=True)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.slow
@pytest.mark.parametrize("lose", [empty, Path.unlink])
@pytest.mark.parametrize("keeps_identity", [True, False])
def test_records_are_never_taken_for_those_of_another_database(
    done: Bench, lose: Callable[[Path], None], keeps_identity: bool
) -> None:
    bench = done
    records = bench.folder.read_trials()
    lose(bench.folder.database)
    if not keeps_identity:  # as in studies from before
        bench.folder.identity.unlink()
    with pytest.raises(StudyMismatch, match="is missing or empty" if not keeps_identity else "holds another study"):
        bench.search(bench.backend(), training={"effective_batch_size": 64})
    with pytest.raises(StudyMismatch, match=r"study\.db is missing or empty; restore it"):
        bench.search(bench.backend())
    assert bench.folder.read_trials() == records
    assert not bench.folder.database.exists() or bench.folder.database.read_bytes() == b""
    bench.search(bench.backend(), fresh=True)
    assert bench.folder.aside is not None
    assert len(list((bench.folder.aside / "trials").iterdir())) == len(records)


@pytest.mark.slow
def test_a_database_from_another_study_does_not_take_the_records_over(done: Bench, tmp_path: Path) -> None:
    one, other = done, Bench(tmp_path / "other", on_disk=True)
    other.folder.path.parent.mkdir()
    other.search(other.backend(), training={"effective_batch_size": 64})
    shutil.copy(other.folder.database, one.folder.database)
    for log in one.folder.path.glob("study.db-*"):
        log.unlink()
    with pytest.raises(StudyMismatch, match="holds another study"):
        one.search(one.backend(), training={"effective_batch_size": 64})


def test_a_study_from_before_gets_its_identity_beside_its_records(done: Bench) -> None:
    bench = done
    bench.folder.identity.unlink()
    bench.search(bench.backend())
    assert bench.folder.read_identity() is not None


def test_a_damaged_identity_says_what_to_do(done: Bench) -> None:
    bench = done
    for damage in ("[" * 5000, "[1]", "9" * 5000, ""):
        bench.folder.identity.write_text(damage)
        with pytest.raises(EnvironmentFailure, match=r"identity\.json is damaged: [^\n]*; delete it"):
            bench.search(bench.backend())


def test_trials_of_others_in_a_study_of_the_same_name_are_refused_untouched(tmp_path: Path) -> None:
    bench = Bench(tmp_path, on_disk=True)
    bench.folder.path.mkdir()
    theirs = optuna.create_study(storage=f"sqlite:///{bench.folder.database}", study_name="autotune")
    theirs.add_trial(optuna.trial.create_trial(value=1.0))
    before = bench.folder.database.read_bytes()
    with pytest.raises(StudyMismatch, match="not a database of autotune: it holds trials, and does not say what they"):
        bench.search(bench.backend())
    assert bench.folder.database.read_bytes() == before


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u@h:notaport/db",
        "postgresql://[::1/db",
        "[::1",
        "postgresql://u@h:-5/db",
        "postgresql://u@h:0/db",
        "postgresql://u@h:99999/db",
        "study.db",
        "",
    ],
)
def test_what_is_no_address_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(SpecError, match=r"^--storage: [^\n]*; give one") as caught:
        read_url(text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("mysql://u@h/db", "pip install pymysql"),
        ("oracle://u@h/db", "postgresql://user@host/database"),
        ("postgresql+psycopg2://u@h/db", r"pip install 'autotune-train\[postgres\]'"),
        ("postgresql+nodriver+x://u@h/db", r"pip install 'autotune-train\[postgres\]'"),
        ("nonsense://u@h/db", "postgresql://user@host/database"),
    ],
)
def test_a_missing_driver_is_said_before_anything_runs(text: str, hint: str) -> None:
    with pytest.raises(EnvironmentFailure, match=rf"^--storage: the driver of .* is not installed .*{hint}") as caught:
        read_url(text)
    assert caught.value.exit_code == 4


def test_a_damaged_address_of_a_study_is_an_error_in_a_line(tmp_path: Path) -> None:
    bench = Bench(tmp_path, on_disk=True)
    bench.folder.path.mkdir()
    bench.folder.remote.write_text('url: "postgresql://[::1/x"\nstudy: x\n')
    with pytest.raises(EnvironmentFailure, match=r"^storage\.yaml is damaged: its url"):
        bench.search(bench.backend())


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:s3cret@h:99x/db",
        "postgresql://u:s3/cr@et@[::1/db",
        "u:s3cret@h",
        "postgresql://h/db?user=u&password=s3cret",
        "postgresql://[::1/db?password=s3cret",
        "mysql://h/db?passwd=s3cret",
    ],
)
def test_a_password_in_an_address_is_not_printed(text: str) -> None:
    with pytest.raises(SpecError, match=r"^--storage: ") as caught:
        read_url(text)
    assert "s3" not in str(caught.value) and "et@" not in str(caught.value)


@pytest.mark.parametrize("origin", [None, "/home/them"])
def test_an_export_asks_no_server_that_a_folder_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: str | None
) -> None:
    """It may be anybody's, and would be told the user's password."""
    monkeypatch.setattr(storage, "_server_storage", lambda _url: pytest.fail("connects"))
    folder = StudyFolder(tmp_path / "study")
    folder.trials.mkdir(parents=True)
    folder.write_best(result())
    parts = {"model": {"factory": "parts:model"}, "data": {"synthetic": {}}}
    folder.write_spec({"name": "mine", **parts, "budget": "1m"})
    folder.write_remote(RemoteStudy("postgresql://attacker.example/x", "x", origin))
    assert read_source(folder.path).folder == (origin and Path(origin))


@pytest.mark.parametrize("option", ["passfile", "service", "sslkey", "options"])
def test_an_address_in_a_folder_names_no_files_of_the_readers(tmp_path: Path, option: str) -> None:
    folder = StudyFolder(tmp_path)
    folder.write_remote(RemoteStudy(f"postgresql://h/db?sslmode=require&{option}=/etc/x", "x"))
    message = f"^storage.yaml: the option '{option}' is allowed only in --storage$"
    with pytest.raises(EnvironmentFailure, match=message), stored_study(folder, writable=False):
        pass
