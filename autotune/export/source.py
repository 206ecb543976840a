"""Reads what an export is made from: a result, and the spec and the records of its study."""

from __future__ import annotations

from pathlib import Path

from autotune.emitted import Emitted, read_emitted
from autotune.errors import SpecError
from autotune.export.target import Source
from autotune.spec import Spec, with_arguments
from autotune.store import StudyFolder, read_study_spec


def read_source(path_or_study: str | Path) -> Source:
    """The result in a study's folder, of a study under `studies/` given by its name, or in a `best.yaml`.

    For a `best.yaml` outside of a study, nothing else is known. Raises SpecError if there is no result, or if the
    result does not belong to the study around it, and EnvironmentFailure for damaged files of the study.
    """
    emitted = read_emitted(path_or_study)
    folder = study_around(emitted)
    if folder is None:
        return Source(emitted=emitted)
    spec = _tuned(read_study_spec(folder), emitted)
    origin = _origin(folder) if _has_factories(spec) else None
    return Source(emitted=emitted, spec=spec, folder=origin, data_folder=_data_folder(folder))


def study_around(emitted: Emitted) -> StudyFolder | None:
    """The study whose result this file is; None for a copy that lies elsewhere."""
    folder = StudyFolder(emitted.path.parent) if emitted.path else None
    return folder if folder is not None and emitted.path == folder.best and folder.spec.exists() else None


def _tuned(spec: Spec, emitted: Emitted) -> Spec:
    values = dict(emitted.config.custom)
    unknown = sorted(values.keys() - spec.search.custom.keys())
    if unknown:
        raise SpecError(f"{emitted.path}: the spec beside it has no knob {unknown[0]}; run the study's search again")
    return with_arguments(spec, values)


def _has_factories(spec: Spec) -> bool:
    own = (spec.model.factory, spec.data.factory, spec.data.collate, spec.training.optimizer.factory)
    return any(own) or ":" in spec.training.loss


def _origin(folder: StudyFolder) -> Path | None:
    remote = folder.read_remote()
    if not folder.exists() or (remote is not None and remote.origin is None):
        return None  # no server is contacted: a folder from elsewhere may name any server
    from autotune.search.ledger import read_origin  # imports Optuna: a second that most exports do not need

    return read_origin(folder)


def _data_folder(folder: StudyFolder) -> str | None:
    records = folder.read_trials()
    return records[-1].environment.workload.data_folder if records else None
