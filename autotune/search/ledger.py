"""The books of a study: Optuna's storage and the trial records, kept so that a crash at any moment loses neither.

A trial is written to its file first and told to Optuna second. On resume the files settle what Optuna still believes to
be running: told from its record where there is one, closed as FAIL where there is none.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.trial import TrialState

from autotune.config import TrainConfig
from autotune.errors import EnvironmentFailure, StudyMismatch
from autotune.records import Predicted, Purpose, TrialRecord
from autotune.search.decide.study import measured, warm_baseline
from autotune.search.distinct import DistinctSampler, tried_configs
from autotune.search.figures import is_ok, samples_per_s
from autotune.search.gates import meets, violations
from autotune.search.identity import differences
from autotune.search.interrupts import uninterrupted
from autotune.search.performance import PREDICTED, observe
from autotune.search.performance.sides import Aside
from autotune.search.space import Space
from autotune.search.storage import OpenStudy, close, open_study, persistently, speaking_of, stored_study
from autotune.search.strategies import Learning
from autotune.search.telling import ask, tell
from autotune.spec import Constraint
from autotune.store import StudyFolder
from autotune.study_database import is_empty

log = logging.getLogger(__name__)

T = TypeVar("T")
_AGAIN = (Purpose.REPEAT, Purpose.CONFIRM)
"""Why configurations run again that Optuna's study has a trial of."""
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
        open_study: OpenStudy = open_study,
    ) -> None:
        """Opens or creates the study; `origin` is the spec's own folder, `constraints`: the spec's, on measures,
        `open_study`: opens Optuna's storage of it.

        Raises StudyMismatch when the folder holds one of another identity.
        """
        self._folder = folder
        self._space = space
        self._sampler = sampler
        self._learning = learning
        self._constraints = constraints
        self._predicted: dict[int, dict[str, float]] = {}
        self._asked: set[int] = set()
        self.records = folder.read_trials()
        self._measured: list[TrialRecord] = []
        self._baseline: TrialRecord | None = None
        self._looked_at = 0
        self._refuse_mixture(identity)
        self._storage, self._study = open_study(folder, sampler)
        with self._storage_in_use():
            self._check_identity(identity)
            self._study.set_user_attr(_ORIGIN, str(origin.absolute()))
            if (remote := folder.read_remote()) is not None:
                folder.write_remote(remote._replace(origin=str(origin.absolute())))
            self._settle_running()
            for record in self.records:
                if record.purpose in (*_AGAIN, Purpose.SIDE):
                    self._tell(record)

    @property
    def elapsed_s(self) -> float:
        """Budget that the trials on record had used up when the last of them ended."""
        return max((record.elapsed_s for record in self.records), default=0.0)

    @property
    def finished_at_s(self) -> float:
        """The budget with which the study came to its end; 0 while it has not. A larger one goes on."""
        return float(self._study.user_attrs.get(_FINISHED, 0.0))

    def mark_finished(self, budget_s: float) -> None:
        self._persistently(lambda: self._study.set_user_attr(_FINISHED, budget_s))

    @property
    def next_number(self) -> int:
        return max((record.number for record in self.records), default=-1) + 1

    @property
    def exhausted(self) -> bool:
        """Whether every configuration that is worth a trial has been tried."""
        return self._persistently(
            lambda: len(tried_configs(self._study, self._space)) >= self._sampler.reach(self._study).size
        )

    def ask(self) -> tuple[int, TrainConfig]:
        """The next Optuna trial, and the configuration that it proposes. Raises NothingWorthTrying."""
        number, config = self._persistently(self._ask)
        self._asked.add(number)
        return number, config

    def next_side(self) -> Aside | None:
        """One side of a configuration that the strategy wants to know before the next trial; Optuna's study does not
        know of it: it is no trial, and has no value that anything could be compared by."""
        return self._persistently(lambda: self._sampler.next_side(self._study))

    def _ask(self) -> tuple[int, TrainConfig]:
        self._withdraw_unknown()
        trial, config = ask(self._study, self._sampler, self._space)
        for knob, value in config.to_dict().items():
            trial.set_user_attr(knob, value)
        expected = trial.user_attrs.get(PREDICTED)
        if expected:
            self._predicted[trial.number] = expected
        return trial.number, config

    def _withdraw_unknown(self) -> None:
        """What was being asked for when the connection was lost counts as running, and nobody runs it."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in self._asked:
                self._study.tell(trial.number, state=TrialState.FAIL)

    def file(self, record: TrialRecord) -> None:
        """Keep the record of a trial that has ended; a search trial is then told to Optuna."""
        with uninterrupted():
            self._folder.write_trial(record)
            self.records.append(record)
            log.info("%s", _line(record))
        self._persistently(lambda: self._tell(record))

    def predicted(self, optuna_trial: int | None) -> Predicted | None:
        """What the strategy expected of a trial that it has proposed in this session."""
        expected = None if optuna_trial is None else self._predicted.get(optuna_trial)
        return Predicted.model_validate(expected) if expected else None

    @property
    def strategy(self) -> DistinctSampler:
        return self._sampler

    def learned(self) -> dict[str, Any]:
        """What the strategy has learned so far, as `best.yaml` states it."""
        return self._sampler.learned(self._study)

    def withdraw(self, optuna_trial: int) -> None:
        """Close a trial that was lost for reasons outside its configuration."""
        self._persistently(lambda: self._tell_once(optuna_trial))

    def _tell_once(self, number: int) -> None:
        if not self._is_told(number):
            self._study.tell(number, state=TrialState.FAIL)

    def _is_told(self, number: int) -> bool:
        """Whether Optuna knows its end: the answer to an earlier attempt may have been lost on its way."""
        study_id = self._storage.get_study_id_from_name(self._study.study_name)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        return bool(self._storage.get_trial(trial_id).state.is_finished())

    def _persistently(self, action: Callable[[], T]) -> T:
        def whole() -> T:
            with uninterrupted():
                return action()

        with self._storage_in_use():
            return persistently(whole)

    def _storage_in_use(self) -> AbstractContextManager[None]:
        return speaking_of(self._folder)

    def measured(self) -> list[TrialRecord]:
        """Measured search trials, the fastest first."""
        self._look()
        return list(self._measured)

    def eligible(self) -> list[TrialRecord]:
        """Those of `measured` that meet the constraints: what the fastest is the best so far of."""
        return [record for record in self.measured() if meets(record, self._constraints)]

    def leaders(self) -> list[TrialRecord]:
        """`eligible` as they are shown: the baseline by the run that others stand beside, so that it is never faster
        than itself."""
        return sorted(map(self._as_shown, self.eligible()), key=samples_per_s, reverse=True)

    def best_so_far(self) -> tuple[float, ...]:
        """Samples per second of the first of `leaders` after each measured trial of the search."""
        eligible = {record.number for record in self.eligible()}
        shown = (self._as_shown(record) for record in self.records if record.number in eligible)
        return tuple(itertools.accumulate(map(samples_per_s, shown), max))

    def _as_shown(self, record: TrialRecord) -> TrialRecord:
        baseline = self.baseline()
        return baseline if baseline and record.result.config == baseline.result.config else record

    def baseline(self) -> TrialRecord | None:
        """What others are shown beside: the baseline's repeat, or its own trial, once it is measured."""
        self._look()
        return self._baseline

    def _look(self) -> None:
        if self._looked_at != len(self.records):  # asked for hundreds of times between two trials
            self._measured, self._baseline = measured(self.records), warm_baseline(self.records)
            self._looked_at = len(self.records)

    def close(self) -> None:
        """Settle what an interruption has left running, and close the storage."""
        # Where the storage cannot be used, that has been said, and the next session settles it. An interruption that
        # comes only now finds nothing left to interrupt.
        with contextlib.suppress(EnvironmentFailure, KeyboardInterrupt), uninterrupted():
            try:
                with self._storage_in_use():
                    self._settle_running()
            finally:
                close(self._storage)

    def _tell(self, record: TrialRecord) -> None:
        number = record.optuna_trial
        if record.purpose in _AGAIN:
            self._sampler.learn_again(record.result.config, observe(record.result))
        if record.purpose is Purpose.SIDE and not record.cut_short:
            self._sampler.learn_side(record.result.config, observe(record.result))
        if number is None or self._is_told(number):
            return
        if record.cut_short or (record.purpose is Purpose.BASELINE and not is_ok(record)):
            self._tell_once(number)  # it says nothing of the configuration, or the study needs it: it may come again
            return
        study_id = self._storage.get_study_id_from_name(self._study.study_name)
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

    def _refuse_mixture(self, identity: dict[str, Any]) -> None:
        """Before the database is touched: records of something else, or records without theirs."""
        before = self._folder.read_identity()
        if before is not None and self.records:
            self._require_same(before, identity)
        lost = not self._folder.exists() or (not self._folder.remote.exists() and is_empty(self._folder.database))
        if self.records and lost:
            raise StudyMismatch(
                f"{self._folder.path} holds {len(self.records)} records of trials, and {self._folder.database.name} "
                "is missing or empty; restore it, start over with --fresh (the records are kept), "
                "or use --out"
            )

    def _check_identity(self, identity: dict[str, Any]) -> None:
        before = self._study.user_attrs.get(_IDENTITY)
        if before is not None:
            self._require_same(before, identity)
        elif self.records or self._study.get_trials(deepcopy=False):
            raise StudyMismatch(
                f"{self._folder.path}: its database does not say what was measured; use --fresh (the old study is "
                "kept), or --out"
            )
        else:
            self._study.set_user_attr(_IDENTITY, identity)
        if self._folder.read_identity() != identity:
            self._folder.write_identity(identity)

    def _require_same(self, before: dict[str, Any], identity: dict[str, Any]) -> None:
        changed = differences(before, identity)
        if changed:
            raise StudyMismatch(
                f"{self._folder.path} holds another study; what differs:\n"
                + "\n".join(f"  {line}" for line in changed)
                + "\nUse the same spec and machine as before, start over with --fresh (the old study is kept), or "
                "use --out"
            )

    def _settle_running(self) -> None:
        by_trial = {record.optuna_trial: record for record in self.records if record.optuna_trial is not None}
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
            record = by_trial.get(trial.number)
            if record is not None:
                self._tell(record)
            else:
                log.info("Optuna trial %d was left running; closed without a result", trial.number)
                self._tell_once(trial.number)


def read_origin(folder: StudyFolder) -> Path:
    """The folder of the spec that the study was run from, where its factories are imported from. Where `storage.yaml`
    says it, no server is asked."""
    remote = folder.read_remote()
    if remote is not None and remote.origin is not None:
        return Path(remote.origin)
    with stored_study(folder, writable=False) as study:
        attributes = study.user_attrs
    return Path(attributes.get(_ORIGIN, Path.cwd()))


def _line(record: TrialRecord) -> str:
    result = record.result
    outcome = f"{samples_per_s(record):.1f} samples/s" if is_ok(record) else result.failure and result.failure.reason
    if result.side_rate is not None:
        outcome = f"the {result.side} alone {result.side_rate.per_s:.1f} samples/s"
    return f"trial {record.number} ({record.purpose}) {result.status}: {outcome}; {result.config.canonical_json()}"
