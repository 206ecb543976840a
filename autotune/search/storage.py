"""Where Optuna keeps a study: `study.db` in its folder, or a database server that several people look at.

A server may drop a connection, or be away for a while: what is asked of it is then asked again. All else of a study,
its trials' records above all, lies in the folder either way.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import optuna
import sqlalchemy
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import URL, make_url

from autotune.errors import EnvironmentFailure, SpecError, StudyMismatch
from autotune.store import RemoteStudy, StudyFolder
from autotune.study_database import STUDY_NAME, whose

log = logging.getLogger(__name__)

T = TypeVar("T")
OpenStudy = Callable[[StudyFolder, BaseSampler], tuple[BaseStorage, optuna.Study]]
"""Where Optuna keeps the study of a folder, and the study itself, made where there is none."""
_EXAMPLE = "postgresql://user@host/database"
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_FIRST_PORT, _LAST_PORT = 1, 65535
_INSTALL = {
    "postgresql": "pip install 'autotune-train[postgres]' and give it as postgresql://…",
    "mysql": "pip install pymysql, and give the address as mysql+pymysql://…",
}
_SECRETS = {"password", "passwd", "sslpassword"}
_OPTIONS = {"application_name", "charset", "host", "port", "sslmode", "sslrootcert"}
"""What an address in a folder may hold. Others name files of the reader's: passwords, keys, whole configurations."""
_CONNECT_TIMEOUT_S = 10
_PATIENCE_S = 60.0
"""For a server that does not answer: the time in which one is restarted."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0


def read_url(text: str) -> URL:
    """What `--storage` gives. Raises SpecError for what is no address of a database server, EnvironmentFailure where
    the driver of that kind of server is not installed."""
    try:
        url = make_url(text)
        url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
        backend = url.get_backend_name()
        is_right = url.port is None or _FIRST_PORT <= url.port <= _LAST_PORT
    except (sqlalchemy.exc.ArgumentError, ValueError):  # the latter of a port, and of an open bracket
        shown = _without_secrets(text)
        raise SpecError(f"--storage: {shown!r} is not a database address; give one such as {_EXAMPLE}") from None
    if secret := sorted(_SECRETS & url.query.keys()):
        raise SpecError(f"--storage: leave out {secret[0]}=; put the password into PGPASSWORD or ~/.pgpass")
    if backend == "sqlite":
        raise SpecError(f"--storage: every study has SQLite already, in study.db; give a server: {_EXAMPLE}")
    if not is_right:
        raise SpecError(f"--storage: there is no port {url.port}; give one from {_FIRST_PORT} to {_LAST_PORT}, or none")
    try:
        url.get_dialect().import_dbapi()
    except (ImportError, AttributeError, ValueError, sqlalchemy.exc.SQLAlchemyError) as error:
        install = _INSTALL.get(backend, f"install a driver of SQLAlchemy's for {backend}, or use {_EXAMPLE}")
        raise EnvironmentFailure(
            f"--storage: the driver of {url.drivername} is not installed ({error}); {install}"
        ) from error
    return url


def on_server(address: str) -> OpenStudy:
    """Keeps studies on the database server at `address`. Raises SpecError for what is no such address."""
    url = read_url(address)
    return lambda folder, sampler: open_study(folder, sampler, url)


def open_study(folder: StudyFolder, sampler: BaseSampler, url: URL | None = None) -> tuple[BaseStorage, optuna.Study]:
    """The study of `folder`, made where there is none: on the server at `url`, else where it has been, else in
    `study.db`.

    Raises StudyMismatch where it has been elsewhere, EnvironmentFailure where the storage cannot be used.
    """
    remote = folder.read_remote()
    if url is not None and remote is None and folder.database.exists():
        raise StudyMismatch(f"{folder.path} keeps its study in study.db; leave out --storage, or use --fresh")
    if url is not None and remote is not None and _public(url) != remote.url:
        raise StudyMismatch(f"{folder.path} keeps its study at {remote.url}; give that as --storage, or use --fresh")
    with speaking_of(folder, url):
        if remote is None and url is None:
            storage, name = _open_file(folder.database), STUDY_NAME
        else:
            name = remote.study if remote else f"{folder.path.absolute().name}-{secrets.token_hex(4)}"
            storage = _server_storage(url or _with_its_driver(remote))
        study = optuna.create_study(
            storage=storage, study_name=name, sampler=sampler, direction="maximize", load_if_exists=True
        )
        name_metric(study)
    if url is not None and remote is None:
        folder.write_remote(RemoteStudy(url=_public(url), study=name))
    return storage, study


def warm_up(opening: OpenStudy) -> None:
    """Have Optuna import what `open_study` needs for a file, which takes half a second, where that is what opens it."""
    if opening is open_study:
        close(RDBStorage("sqlite://"))


@contextlib.contextmanager
def stored_study(folder: StudyFolder, *, writable: bool) -> Iterator[optuna.Study]:
    """The study of `folder`, for others than its controller, who may be at work on it.

    Raises EnvironmentFailure where the storage is missing, damaged or does not answer; it is never created here.
    """
    remote = folder.read_remote()
    with speaking_of(folder):
        storage = _server_storage(_with_its_driver(remote)) if remote else _existing_file(folder, writable=writable)
        try:
            with undamaged(folder):
                study = _load(remote.study if remote else STUDY_NAME, storage, remote.url if remote else folder.path)
            yield study
        finally:
            close(storage)


def _load(name: str, storage: BaseStorage, where: object) -> optuna.Study:
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        raise EnvironmentFailure(f"there is no study {name} at {where}") from error


@contextlib.contextmanager
def undamaged(folder: StudyFolder) -> Iterator[None]:
    """Around what Optuna reads: it expects what it has written, and fails in many ways on anything else. Raises
    EnvironmentFailure instead."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise EnvironmentFailure(
            f"the Optuna data of {folder.path} is damaged: {type(error).__name__}: {ascii(str(error))[:200]}"
        ) from error


def close(storage: BaseStorage) -> None:
    storage.remove_session()
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()


def name_metric(study: optuna.Study) -> None:
    """What the values of `study` are, for the axes of Optuna's plots."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(["samples_per_s"])


def persistently(
    action: Callable[[], T],
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """`action`, again and again where the connection to a server is lost, for a minute; it has to bear that."""
    ends_s, pause_s = clock() + _PATIENCE_S, _FIRST_PAUSE_S
    while True:
        try:
            return action()
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            if not _is_lost_connection(error) or clock() + pause_s > ends_s:
                raise
            log.warning("the study's storage does not answer, trying again in %.1f s: %s", pause_s, _cause(error))
        sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


@contextlib.contextmanager
def speaking_of(folder: StudyFolder, url: URL | None = None) -> Iterator[None]:
    """An error of the storage becomes one that says what to do about it."""
    try:
        yield
    except (sqlite3.Error, sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        remote = folder.read_remote()
        where = _public(url) if url is not None else remote.url if remote else str(folder.database)
        hint = "check that the server runs and accepts your login (passwords: PGPASSWORD or ~/.pgpass)"
        if url is None and remote is None:
            full = "full" in _cause(error)
            hint = "free some space" if full else "repair it, or start over with --fresh (the old study is kept)"
        raise EnvironmentFailure(
            f"cannot use {where}: {_cause(error)}; {hint}, and run the same command again"
        ) from error


def _cause(error: BaseException) -> str:
    found = getattr(error.__cause__, "orig", None) or getattr(error, "orig", None) or error
    return " ".join(str(found).split())


def _is_lost_connection(error: BaseException) -> bool:
    """Whether a server dropped the connection. A file that cannot be read now cannot be read in a second either."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, sqlalchemy.exc.DBAPIError):
            is_file = isinstance(link.orig, sqlite3.Error)
            return not is_file and (link.connection_invalidated or isinstance(link, _OF_CONNECTIONS))
        link = link.__cause__
    return False


_OF_CONNECTIONS = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)


def _without_secrets(text: str) -> str:
    """What may be printed of a text that is no address, but may hold a password all the same."""
    return re.sub(r"(//|^).*@", r"\1…@", text.partition("?")[0], flags=re.DOTALL)


def _public(url: URL) -> str:
    """Without its password, as it may be written down, and without the driver that was chosen for it."""
    return url._replace(password=None, drivername=url.get_backend_name()).render_as_string()


def _with_its_driver(remote: RemoteStudy | None) -> URL:
    if remote is None:
        raise ValueError("the study is kept in a file")
    try:
        url = read_url(remote.url)
    except SpecError as error:
        raise EnvironmentFailure(
            f"storage.yaml is damaged: its url {remote.url!r} is not a database address"
        ) from error
    if unknown := sorted(url.query.keys() - _OPTIONS):
        raise EnvironmentFailure(f"storage.yaml: the option {unknown[0]!r} is allowed only in --storage")
    return url


def _server_storage(url: URL) -> RDBStorage:
    """A connection that was dropped while nobody used it is noticed, and replaced, before it is used again."""
    arguments = {"connect_timeout": _CONNECT_TIMEOUT_S} if url.get_backend_name() == "postgresql" else {}
    address = url.render_as_string(hide_password=False)
    return RDBStorage(address, engine_kwargs={"pool_pre_ping": True, "pool_size": 2, "connect_args": arguments})


def _existing_file(folder: StudyFolder, *, writable: bool) -> RDBStorage:
    foreign = whose(folder.database)
    if foreign is not None:
        raise EnvironmentFailure(f"{folder.database} is not a database of autotune: {foreign}")
    mode = "rw" if writable else "ro"
    if not os.access(folder.path, os.W_OK):
        mode += "&immutable=1"  # no log can be written beside it, which SQLite else insists on
    return _in_file(folder.database, mode, skip_compatibility_check=True, skip_table_creation=True)


def _open_file(path: Path) -> RDBStorage:
    """SQLite with a write-ahead log: no reader blocks the controller, and a commit does not wait for the disk."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    return _in_file(path, "rw")


def _in_file(path: Path, mode: str, **options: Any) -> RDBStorage:
    """`mode`: of SQLite's addresses, in which a path with any character can be quoted, as in SQLAlchemy's it cannot."""
    address = f"file:{quote(str(path.absolute()))}?mode={mode}"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(address, uri=True, check_same_thread=False)
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    return RDBStorage("sqlite:///study.db", engine_kwargs={"creator": connect}, **options)
