"""What a study carries for Optuna's dashboard beside its trials: a note, figures and pictures.

All of it can be written any number of times: the same things are replaced, nothing piles up.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import optuna
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.exceptions import ExperimentalWarning

from autotune.report.dashboard import pictures
from autotune.report.dashboard.note import SIGNATURE, note_on
from autotune.report.figures import FIGURES
from autotune.report.reading import Reading, read_study
from autotune.search.ledger import stored_study
from autotune.store import StudyFolder, speaking_of


def furnish(folder: StudyFolder) -> None:
    """Write them all into `study.db` and the folder of artifacts, for whoever opens these with Optuna's own tools.

    Raises SpecError where the study has no result yet, EnvironmentFailure where something cannot be written.
    """
    reading = read_study(folder)
    with stored_study(folder, writable=True) as study:
        write_note(study, reading)
        write_figures(study, reading)
        write_pictures(study, reading)


def write_note(study: optuna.Study, reading: Reading) -> None:
    """Into `study`, unless somebody has put a note of their own there."""
    from optuna_dashboard import get_note, save_note

    before, now = get_note(study), note_on(reading)
    if before != now and (not before or SIGNATURE in before):
        save_note(study, now)


def write_figures(study: optuna.Study, reading: Reading) -> None:
    """Those of the report, under their own names."""
    from optuna_dashboard import save_plotly_graph_object

    for figure in FIGURES.values():
        plot = figure.build(reading)
        if plot is not None:
            plot.update_layout(title=figure.title)
            save_plotly_graph_object(study, plot, graph_object_id=figure.name)


def write_pictures(study: optuna.Study, reading: Reading) -> None:
    """PNG files, as artifacts of the study."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        with speaking_of(reading.folder.artifacts):
            reading.folder.artifacts.mkdir(exist_ok=True)
            store = FileSystemArtifactStore(reading.folder.artifacts)
            known = {meta.filename: meta.artifact_id for meta in get_all_artifact_meta(study)}
            for name, draw in pictures.PICTURES.items():
                _write_picture(study, store, f"{name}.png", draw, reading, known.get(f"{name}.png"))


def _write_picture(
    study: optuna.Study,
    store: FileSystemArtifactStore,
    name: str,
    draw: Callable[[Reading], bytes],
    reading: Reading,
    artifact_id: str | None,
) -> None:
    if artifact_id is not None:
        store.write(artifact_id, io.BytesIO(draw(reading)))
        return
    path = reading.folder.artifacts / name
    try:
        path.write_bytes(draw(reading))
        upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=study, mimetype="image/png")
    finally:
        path.unlink(missing_ok=True)
