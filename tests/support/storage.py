"""Optuna's storage in memory: of a simulated search, three quarters would else go into SQL."""

from __future__ import annotations

import uuid

import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import InMemoryStorage

from autotune.search.storage import close, name_metric, open_study
from autotune.store import StudyFolder

_NAME = "autotune"


class MemoryStudies:
    """Opens studies as `open_study` does, and finds them again for as long as it lives.

    `study.db` holds nothing but the study's key, so that it is found wherever its folder has been moved to.
    """

    def __init__(self) -> None:
        self._storages: dict[str, InMemoryStorage] = {}

    def __call__(self, folder: StudyFolder, sampler: BaseSampler) -> tuple[InMemoryStorage, optuna.Study]:
        if not folder.database.exists():
            folder.database.write_text(uuid.uuid4().hex)
        storage = self._storages.setdefault(folder.database.read_text(), InMemoryStorage())
        study = optuna.create_study(
            storage=storage, study_name=_NAME, sampler=sampler, direction="maximize", load_if_exists=True
        )
        name_metric(study)
        return storage, study

    def study(self, folder: StudyFolder) -> optuna.Study:
        """The study of `folder`, to look at."""
        return optuna.load_study(study_name=_NAME, storage=self._storages[folder.database.read_text()])

    def to_disk(self, folder: StudyFolder) -> None:
        """Put the study of `folder` where `open_study` would have kept it, with each trial written once."""
        kept = self.study(folder)
        folder.database.unlink()
        storage, study = open_study(folder, RandomSampler())
        for key, value in kept._storage.get_study_system_attrs(kept._study_id).items():
            storage.set_study_system_attr(study._study_id, key, value)
        for key, value in kept.user_attrs.items():
            study.set_user_attr(key, value)
        study.add_trials(kept.get_trials())
        close(storage)
