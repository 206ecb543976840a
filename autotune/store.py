"""The study folder: only this module knows its file names. Every file is written completely or not at all.

best.yaml          the emitted configuration
study.db           Optuna's storage
trials/NNNN.json   everything one trial saw
trials/NNNN.txt    the traceback of one that failed, and the end of what it printed
spec.yaml          the resolved spec
identity.json      what the records are measurements of: the same as in the database, in case that is lost
report.html        the report
log.txt            the log; locked while a controller owns the study
ablation.json      what an ablation came to; ablation.md the same as tables, ablation.svg and .png as a picture
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from pydantic import ValidationError

from autotune.best_yaml import Document
from autotune.emitted import FILE_NAME
from autotune.errors import EnvironmentFailure, SpecError, StudyMismatch
from autotune.records import TrialRecord
from autotune.records.plausible import require_figures
from autotune.spec import Spec, dump_yaml, parse_spec
from autotune.spec.files import read_spec
from autotune.study_database import is_unlabelled, whose
from autotune.untrusted import check, problem, read_bytes, read_yaml

_BEFORE_A_STUDY = {"trials", "log.txt", "spec.yaml", "identity.json"}
"""Files of a session that ended before it had a study."""
_MOST_OF_A_RECORD = 100_000_000
"""Most bytes of a record: a soak of a million optimizer steps needs a third of it."""
_APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
"""Does not follow links or wait for the reader of a pipe: a folder from elsewhere may contain both."""
_LOGGED = ("autotune", "optuna")
"""Loggers whose lines go into the study's log."""


class _QuietFileHandler(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing: a log that cannot be written must not hide the error that says why."""


class RemoteStudy(NamedTuple):
    """A study on a database server."""

    url: str
    """Without a password."""
    study: str
    """Its name there."""
    origin: str | None = None
    """The folder of the spec that the study was run from."""


class StudyFolder:
    """`studies/<name>/`. Raises EnvironmentFailure if the disk is full or the folder cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None
        self._handler: logging.Handler | None = None
        self.aside: Path | None = None
        """Where `start_over` has put an earlier study."""

    @property
    def database(self) -> Path:
        return self.path / "study.db"

    @property
    def best(self) -> Path:
        return self.path / FILE_NAME

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def spec(self) -> Path:
        return self.path / "spec.yaml"

    @property
    def identity(self) -> Path:
        return self.path / "identity.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def artifacts(self) -> Path:
        """Pictures that Optuna's dashboard shows with the study."""
        return self.path / "artifacts"

    def comparison(self, other: StudyFolder) -> Path:
        """The report of this study and another."""
        return self.path / f"report-{other.path.absolute().name}.html"

    @property
    def trials(self) -> Path:
        return self.path / "trials"

    @property
    def remote(self) -> Path:
        """The file that names the database server of the study, if the study is not in `study.db`."""
        return self.path / "storage.yaml"

    def read_remote(self) -> RemoteStudy | None:
        """The database server; None for a study in `study.db`. Raises EnvironmentFailure if the file is damaged."""
        if not self.remote.exists():
            return None
        try:
            found = read_yaml(self.remote)
            origin = found.get("origin")
            return RemoteStudy(str(found["url"]), str(found["study"]), None if origin is None else str(origin))
        except (OSError, ValueError, KeyError) as error:
            raise EnvironmentFailure(
                f"{self.remote} is damaged; it must contain `url:` and `study:`, as the database server knows them"
            ) from error

    def write_remote(self, remote: RemoteStudy) -> None:
        with speaking_of(self.remote):
            write_atomically(self.remote, dump_yaml({k: v for k, v in remote._asdict().items() if v is not None}))

    def exists(self) -> bool:
        return self.database.exists() or self.remote.exists()

    def has_records(self) -> bool:
        return any(self.trials.glob("[0-9]*.json"))

    def open(self) -> None:
        """Create the folder if it is missing, and own it until `close`.

        Raises StudyMismatch if another controller owns it, or if the folder is not a study.
        """
        with speaking_of(self.path):
            self._refuse_foreign()
            if self.trials.is_symlink():
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(self.trials))
            self.trials.mkdir(parents=True, exist_ok=True)
            lock = os.fdopen(os.open(self.log, _APPENDING, 0o666), "a", encoding="utf-8")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.close()
                message = f"{self.path}: another autotune is running this study; wait for it, or use --out"
                raise StudyMismatch(message) from error
            self._lock = lock
            self._handler = _QuietFileHandler(self.log, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        for name in _LOGGED:
            logging.getLogger(name).addHandler(self._handler)
            logging.getLogger(name).setLevel(logging.INFO)

    def is_running(self) -> bool:
        """Whether a controller owns the study at this moment."""
        try:
            with os.fdopen(os.open(self.log, os.O_RDONLY | os.O_NONBLOCK), "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def start_over(self) -> None:
        """Keep an earlier study, if there is one, aside under a new name, and own an empty folder instead.

        The folder must be open, so that the study of a running controller is never moved.
        """
        if not (self.exists() or self.has_records()):
            return
        stamp = f"{self.path.name}.{time.strftime('%Y%m%d-%H%M%S')}"
        names = itertools.chain([stamp], (f"{stamp}-{number}" for number in itertools.count(2)))
        aside = next(path for path in map(self.path.with_name, names) if not path.exists())
        with speaking_of(self.path):
            self.path.rename(aside)
        self.close()
        self.open()
        self.aside = aside

    def close(self) -> None:
        if self._handler is not None:
            for name in _LOGGED:
                logging.getLogger(name).removeHandler(self._handler)
            with contextlib.suppress(OSError):  # a full disk, which has been reported already
                self._handler.close()
            self._handler = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _refuse_foreign(self) -> None:
        if self.database.exists():
            foreign = whose(self.database)
            if foreign is None and is_unlabelled(self.database):
                foreign = "it holds trials, and does not say what they measured"
            if foreign is not None:
                raise StudyMismatch(
                    f"{self.database} is not a database of autotune: {foreign}; choose another folder with --out"
                )
        if not self.path.exists() or self.exists():
            return
        if not self.path.is_dir():
            raise StudyMismatch(f"{self.path} is a file; choose a folder for the study with --out")
        others = sorted({path.name for path in self.path.iterdir()} - _BEFORE_A_STUDY)
        if others and not self.has_records():
            raise StudyMismatch(f"{self.path} is not a study: it holds {others[0]}; choose another folder with --out")

    def traceback(self, number: int) -> Path:
        """File with the traceback of a failed trial, for people to read."""
        return self.trials / f"{number:04d}.txt"

    def write_trial(self, record: TrialRecord) -> None:
        with speaking_of(self.trials):
            failure = record.result.failure
            if failure is not None and failure.traceback:
                printed = record.result.output_tail.strip()
                parts = [failure.traceback.strip(), *(["What it printed:", printed] if printed else [])]
                write_atomically(self.traceback(record.number), "\n\n".join(parts) + "\n")
            write_atomically(self.trials / f"{record.number:04d}.json", record.model_dump_json(indent=1))

    def read_trials(self) -> list[TrialRecord]:
        """All records, by number. Raises EnvironmentFailure for a damaged record."""
        return [_read_record(path) for path in sorted(self.trials.glob("[0-9]*.json"))]

    def write_best(self, document: dict[str, Any]) -> None:
        with speaking_of(self.best):
            write_atomically(self.best, dump_yaml(document))

    def read_best(self) -> dict[str, Any] | None:
        """The content of best.yaml; None before the first. Raises EnvironmentFailure if it is damaged."""
        if not self.best.exists():
            return None
        try:
            document = read_yaml(self.best)
            check(Document, document)
        except (OSError, ValueError) as error:
            raise EnvironmentFailure(
                f"{self.best} is damaged: {error}; delete it and run the same search again"
            ) from error
        return document

    def write_identity(self, identity: dict[str, Any]) -> None:
        with speaking_of(self.identity):
            write_atomically(self.identity, json.dumps(identity, indent=1))

    def read_identity(self) -> dict[str, Any] | None:
        """The identity; None if there is none, as in older studies. Raises EnvironmentFailure for a damaged file."""
        try:
            document = json.loads(read_bytes(self.identity))
            if not isinstance(document, dict):
                raise ValueError("it holds no mapping")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise EnvironmentFailure(
                f"{self.identity} is damaged: {why}; delete it; the database has the measurements"
            ) from error
        return document

    def write_spec(self, document: dict[str, Any]) -> None:
        with speaking_of(self.spec):
            write_atomically(self.spec, dump_yaml(document))


class AblationFolder(StudyFolder):
    """Like a study's folder, with the runs of an ablation. For several specs, a folder around theirs has the common
    results."""

    @property
    def result(self) -> Path:
        return self.path / "ablation.json"

    @property
    def tables(self) -> Path:
        return self.path / "ablation.md"

    def picture(self, kind: str) -> Path:
        return self.path / f"ablation.{kind}"

    def exists(self) -> bool:
        return self.spec.exists() and not self.database.exists()

    def write(self, path: Path, content: str | bytes) -> None:
        """Write one of the files above."""
        with speaking_of(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)


def _read_record(path: Path) -> TrialRecord:
    try:
        record = TrialRecord.model_validate_json(read_bytes(path, _MOST_OF_A_RECORD))
        require_figures(record)
        return record
    except (OSError, ValueError) as error:
        why = problem(error) if isinstance(error, ValidationError) else str(error)
        raise EnvironmentFailure(
            f"cannot read {path}: {why}; delete the file (that trial is then run again), "
            "or start over with --fresh (the old study is kept)"
        ) from error


def read_resolved_spec(folder: StudyFolder) -> dict[str, Any]:
    """The study's own copy of its spec. Raises EnvironmentFailure if it is missing or damaged."""
    try:
        if folder.spec.exists() and not folder.spec.is_file():
            raise SpecError(f"{folder.spec}: it is not a regular file")
        document = read_spec(folder.spec)
    except SpecError as error:
        raise EnvironmentFailure(f"{error}; run the same search again to rewrite it") from error
    if document.flaws or not isinstance(document.values, dict):
        why = document.flaws[0].message if document.flaws else "it holds no mapping"
        raise EnvironmentFailure(f"{folder.spec} is damaged: {why}; run the same search again to rewrite it")
    return document.values


def read_spec_to_run(folder: StudyFolder) -> dict[str, Any]:
    """The same for trials: where the folder was moved, the data set that `autotune.tune` has written is taken from
    beside it or from within."""
    values = read_resolved_spec(folder)
    match values.get("data"):
        case {"factory": "autotune.workload.pickled:load", "args": {"path": str(path), **others}}:
            name, at = Path(path).name, folder.path.absolute()
            moved = [place for place in (at.parent / name, at / name) if place.is_file()]
            if moved and not Path(path).exists():
                values["data"]["args"] = {"path": str(moved[0]), **others}
    return values


def read_study_spec(folder: StudyFolder) -> Spec:
    """The same as a `Spec`. Raises EnvironmentFailure if it is not valid."""
    values = read_resolved_spec(folder)
    try:
        return parse_spec(values, folder.path, folder.spec)
    except SpecError as error:
        more = f" ({len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
        raise EnvironmentFailure(
            f"{error.problems[0]}{more}; run the same search again to rewrite the study's spec"
        ) from error


def find_study(name: str, studies: Path) -> StudyFolder:
    """The study in the folder `name`, or with that name under `studies`. Raises StudyMismatch if there is none."""
    for path in (Path(name), studies / name):
        if StudyFolder(path).exists():
            return StudyFolder(path)
    names = {path.parent.name for name in ("study.db", "storage.yaml") for path in studies.glob(f"*/{name}")}
    found = sorted(filter(str.isprintable, names))
    known = f"studies here: {', '.join(found)}" if found else f"there are no studies under {studies}/ yet"
    raise StudyMismatch(f"no study at {name}; {known}")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file next to `path`, flush it to the disk, rename it: a crash at any time leaves the old or the new file.

    Text is written as UTF-8.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)  # a folder from elsewhere may have a link to another file there
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def speaking_of(path: Path) -> Iterator[None]:
    """Turn an OSError on `path` into an error that says what to do."""
    try:
        yield
    except OSError as error:
        hints = {
            errno.ENOSPC: "the disk is full; free some space and run the same command to continue",
            errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
            errno.EACCES: "no permission to write there; choose another folder with --out",
            errno.EPERM: "no permission to write there; choose another folder with --out",
            errno.ELOOP: "it is a link to another place; remove the link",
            errno.EROFS: "the file system is read-only; choose another folder with --out",
        }
        hint = hints.get(error.errno or 0, error.strerror or str(error))
        raise EnvironmentFailure(f"cannot write {path}: {hint}") from error
