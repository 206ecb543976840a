"""The books of a study: Optuna's storage and the trial records, kept so that a crash at any moment loses neither.

A trial is written to its file first and told to Optuna second. On resume the files settle what Optuna still believes to
be running: told from its record where there is one, closed as FAIL where there is none.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from autotune.config import TrainConfig
from autotune.errors import EnvironmentFailure, StudyMismatch
from autotune.records import Predicted, Purpose, TrialRecord
from autotune.search.distinct import DistinctSampler, tried_configs
from autotune.search.figures import is_ok, samples_per_s
from autotune.search.gates import violations
from autotune.search.identity import differences
from autotune.search.performance import PREDICTED
from autotune.search.space import Space
from autotune.search.strategies import Learning
from autotune.search.telling import ask, tell
from autotune.spec import Constraint
from autotune.store import StudyFolder

log = logging.getLogger(__name__)

_NAME = "autotune"
_IDENTITY, _FINISHED, _ORIGIN = "identity", "finished", "origin"


class Ledger:
    """One study in its folder. All its methods keep files and storage in step."""

    def __init__(
        self,
        folder: StudyFolder,
        space: Space,
        sampler: DistinctSampler,
        learning: Learning,
        identity: dict[str, Any],
        origin: Path,
        constraints: Sequence[Constraint] = (),
    ) -> None:
        """Opens or creates the study; `origin` is the spec's own folder, `constraints`: the spec's, on measures.

        Raises StudyMismatch when the folder holds one of another identity.
        """
        self._folder = folder
        self._space = space
        self._sampler = sampler
        self._learning = learning
        self._constraints = constraints
        self._predicted: dict[int, dict[str, float]] = {}
        self.records = folder.read_trials()
        self._storage, self._study = _open_study(folder, sampler)
        self._check_identity(identity)
        self._study.set_user_attr(_ORIGIN, str(origin.absolute()))
        self._settle_running()

    @property
    def elapsed_s(self) -> float:
        """Budget that the trials on record had used up when the last of them ended."""
        return max((record.elapsed_s for record in self.records), default=0.0)

    @property
    def finished_at_s(self) -> float:
        """The budget with which the study came to its end; 0 while it has not. A larger one goes on."""
        return float(self._study.user_attrs.get(_FINISHED, 0.0))

    def mark_finished(self, budget_s: float) -> None:
        with _speaking_of(self._folder.database):
            self._study.set_user_attr(_FINISHED, budget_s)

    @property
    def next_number(self) -> int:
        return max((record.number for record in self.records), default=-1) + 1

    @property
    def exhausted(self) -> bool:
        """Whether every configuration of the space has been tried."""
        return len(tried_configs(self._study, self._space)) >= self._space.size

    def ask(self) -> tuple[int, TrainConfig]:
        """The next Optuna trial, and the configuration that it proposes. Raises OnlyRisksLeft."""
        with _speaking_of(self._folder.database):
            trial, config = ask(self._study, self._sampler, self._space)
            for knob, value in config.to_dict().items():
                trial.set_user_attr(knob, value)
            expected = trial.user_attrs.get(PREDICTED)
            if expected:
                self._predicted[trial.number] = expected
        return trial.number, config

    def file(self, record: TrialRecord) -> None:
        """Keep the record of a trial that has ended; a search trial is then told to Optuna."""
        self._folder.write_trial(record)
        self.records.append(record)
        log.info("%s", _line(record))
        with _speaking_of(self._folder.database):
            self._tell(record)

    def predicted(self, optuna_trial: int | None) -> Predicted | None:
        """What the strategy expected of a trial that it has proposed in this session."""
        expected = None if optuna_trial is None else self._predicted.get(optuna_trial)
        return Predicted.model_validate(expected) if expected else None

    @property
    def strategy(self) -> DistinctSampler:
        return self._sampler

    def beliefs(self) -> list[str]:
        """What the strategy has learnt so far, a sentence each."""
        return self._sampler.beliefs(self._study)

    def withdraw(self, optuna_trial: int) -> None:
        """Close an asked trial that came to no result through no doing of its configuration."""
        with _speaking_of(self._folder.database):
            self._study.tell(optuna_trial, state=TrialState.FAIL)

    def measured(self) -> list[TrialRecord]:
        """Search trials that came to a figure, the fastest first."""
        done = [record for record in self.records if record.optuna_trial is not None and is_ok(record)]
        return sorted(done, key=samples_per_s, reverse=True)

    def eligible(self) -> list[TrialRecord]:
        """Those of `measured` that meet the constraints: what the fastest is the best so far of."""
        return [record for record in self.measured() if self._meets_constraints(record)]

    def best_so_far(self) -> tuple[float, ...]:
        """Samples per second of the fastest eligible trial after each trial of the search that came to a figure."""
        eligible = {record.number for record in self.eligible()}
        return tuple(
            itertools.accumulate((samples_per_s(record) for record in self.records if record.number in eligible), max)
        )

    def _meets_constraints(self, record: TrialRecord) -> bool:
        return max(violations(record, self._constraints), default=0.0) <= 0

    def baseline(self) -> TrialRecord | None:
        """The baseline's own trial, once it came to a figure."""
        return next((record for record in self.of_purpose(Purpose.BASELINE) if is_ok(record)), None)

    def of_purpose(self, purpose: Purpose) -> list[TrialRecord]:
        return [record for record in self.records if record.purpose is purpose]

    def close(self) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _tell(self, record: TrialRecord) -> None:
        number = record.optuna_trial
        if number is None:
            return
        if record.cut_short or (record.purpose is Purpose.BASELINE and not is_ok(record)):
            self.withdraw(number)  # it says nothing about the configuration, or the study needs it: it may come again
            return
        study_id = self._storage.get_study_id_from_name(_NAME)
        trial = optuna.trial.Trial(self._study, self._storage.get_trial_id_from_study_id_trial_number(study_id, number))
        trial.set_user_attr("record", record.number)
        tell(
            self._study,
            trial,
            record.result,
            learning=self._learning,
            worst=self._worst_value(),
            violations=violations(record, self._constraints),
        )

    def _worst_value(self) -> float | None:
        return min(map(samples_per_s, self.eligible()), default=None)

    def _check_identity(self, identity: dict[str, Any]) -> None:
        before = self._study.user_attrs.get(_IDENTITY)
        if before is None:
            self._study.set_user_attr(_IDENTITY, identity)
            return
        changed = differences(before, identity)
        if changed:
            raise StudyMismatch(
                f"{self._folder.path} holds another study; what differs:\n"
                + "\n".join(f"  {line}" for line in changed)
                + "\nGo on with what it was begun with, start over with --fresh (the old study is kept), or use --out"
            )

    def _settle_running(self) -> None:
        by_trial = {record.optuna_trial: record for record in self.records if record.optuna_trial is not None}
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
            record = by_trial.get(trial.number)
            if record is not None:
                self._tell(record)
            else:
                log.info(
                    "Optuna trial %d was running when the last session ended; closed without a result", trial.number
                )
                self.withdraw(trial.number)


def read_origin(folder: StudyFolder) -> Path:
    """The folder of the spec that the study was run from, where its factories are imported from."""
    with _speaking_of(folder.database):
        storage = _open_storage(folder.database)
        try:
            attributes = optuna.load_study(study_name=_NAME, storage=storage).user_attrs
        finally:
            storage.remove_session()
            storage.engine.dispose()
    return Path(attributes.get(_ORIGIN, Path.cwd()))


@contextlib.contextmanager
def stored_study(folder: StudyFolder, *, writable: bool) -> Iterator[optuna.Study]:
    """The study in `study.db`, for others than its controller, who may be at work on it.

    Raises EnvironmentFailure where the database is missing or damaged; it is never created here.
    """
    mode = "rw" if writable else "ro"
    if not os.access(folder.path, os.W_OK):
        mode += "&immutable=1"  # no log can be written beside it, which SQLite else insists on
    with _speaking_of(folder.database):
        storage = _storage(folder.database, mode, skip_compatibility_check=True, skip_table_creation=True)
        try:
            yield optuna.load_study(study_name=_NAME, storage=storage)
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _open_study(folder: StudyFolder, sampler: DistinctSampler) -> tuple[RDBStorage, optuna.Study]:
    with _speaking_of(folder.database):
        storage = _open_storage(folder.database)
        study = optuna.create_study(
            storage=storage, study_name=_NAME, sampler=sampler, direction="maximize", load_if_exists=True
        )
        name_metric(study)
    return storage, study


def name_metric(study: optuna.Study) -> None:
    """What the values of `study` are, for the axes of Optuna's plots."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(["samples_per_s"])


def _line(record: TrialRecord) -> str:
    result = record.result
    outcome = f"{samples_per_s(record):.1f} samples/s" if is_ok(record) else result.failure and result.failure.reason
    return f"trial {record.number} ({record.purpose}) {result.status}: {outcome}; {result.config.canonical_json()}"


@contextlib.contextmanager
def _speaking_of(database: Path) -> Iterator[None]:
    """An error of the storage becomes one that says what to do about it."""
    try:
        yield
    except (sqlite3.Error, sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = str(getattr(error.__cause__, "orig", None) or getattr(error, "orig", None) or error)
        hint = "free some space" if "full" in cause else "mend it, or start over with --fresh (the old study is kept)"
        raise EnvironmentFailure(f"cannot use {database}: {cause}; {hint}, and run the same command again") from error


def _open_storage(path: Path) -> RDBStorage:
    """SQLite with a write-ahead log: no reader blocks the controller, and a commit does not wait for the disk."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    return _storage(path, "rw")


def _storage(path: Path, mode: str, **options: Any) -> RDBStorage:
    """`mode`: of SQLite's addresses, in which a path with any character can be quoted, as in SQLAlchemy's it cannot."""
    address = f"file:{quote(str(path.absolute()))}?mode={mode}"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(address, uri=True, check_same_thread=False)
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    return RDBStorage("sqlite:///study.db", engine_kwargs={"creator": connect}, **options)
