"""What a study carries for Optuna's dashboard beside its trials: a note, figures and pictures.

All of it can be written any number of times: the same things are replaced, nothing piles up.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import optuna
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.exceptions import ExperimentalWarning

from autotune.report.dashboard import pictures
from autotune.report.dashboard.note import SIGNATURE, note_on
from autotune.report.figures import FIGURES
from autotune.report.reading import Reading, read_study
from autotune.search.storage import stored_study
from autotune.store import StudyFolder, speaking_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot

_TITLE_PX, _HEIGHT_PX = 104, 450
"""Optuna's dashboard cuts off what is higher than its cards."""


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
            _give_title(plot, figure.title)
            save_plotly_graph_object(study, plot, graph_object_id=figure.name)


def _give_title(plot: Plot, title: str) -> None:
    """Above the legend, in a margin that a report does without: there the caption has it."""
    plot.update_layout(
        title={"text": title, "x": 0.02, "y": 1.0, "yref": "container", "yanchor": "top", "pad": {"t": 12}},
        margin={"t": _TITLE_PX},
        height=min((plot.layout.height or _HEIGHT_PX) + _TITLE_PX, _HEIGHT_PX),
    )


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
