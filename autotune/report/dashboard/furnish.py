"""Adds a note, figures and pictures to a study, for Optuna's dashboard.

All of it can be written repeatedly: later versions replace earlier ones.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.exceptions import ExperimentalWarning

from autotune.errors import EnvironmentFailure
from autotune.report.dashboard import pictures
from autotune.report.dashboard.note import SIGNATURE, note_on
from autotune.report.figures import FIGURES
from autotune.report.reading import Reading, read_study
from autotune.search.storage import stored_study, undamaged
from autotune.store import StudyFolder, speaking_of, write_atomically

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot

_ARTIFACT_ID = re.compile("[0-9a-f-]{36}")
_TITLE_PX, _HEIGHT_PX = 104, 450
"""Optuna's dashboard cuts off figures that are higher than its cards."""


class Artifacts(FileSystemArtifactStore):
    """The files in a study's own artifact folder; a folder from elsewhere may contain links and pipes."""

    def open_reader(self, artifact_id: str) -> Any:
        path = self._get_filepath(artifact_id)
        if path.is_symlink() or not path.is_file():
            raise ArtifactNotFound("not found")
        return super().open_reader(artifact_id)


def artifacts_of(folder: StudyFolder) -> Artifacts | None:
    """None if there are none, or if the folder leads elsewhere."""
    path = folder.artifacts
    return Artifacts(path) if path.is_dir() and not path.is_symlink() else None


def furnish(folder: StudyFolder) -> None:
    """Write note, figures and pictures into `study.db` and the artifact folder, for use with Optuna's own tools.

    Raises SpecError if the study has no result yet, EnvironmentFailure if something cannot be written.
    """
    reading = read_study(folder)
    with stored_study(folder, writable=True) as study:
        with undamaged(folder):
            write_note(study, reading)
        write_figures(study, reading)
        write_pictures(study, reading)


def write_note(study: optuna.Study, reading: Reading) -> None:
    """Write the note into `study`, unless a user has written one there."""
    from optuna_dashboard import get_note, save_note

    before, now = get_note(study), note_on(reading)
    if before != now and (not before or SIGNATURE in before):
        save_note(study, now)


def write_figures(study: optuna.Study, reading: Reading) -> None:
    """Write the figures of the report, under their own names."""
    from optuna_dashboard import save_plotly_graph_object

    for figure in FIGURES.values():
        plot = figure.build(reading)
        if plot is not None:
            _give_title(plot, figure.title)
            save_plotly_graph_object(study, plot, graph_object_id=figure.name)


def _give_title(plot: Plot, title: str) -> None:
    """Put the title above the legend; in a report, the caption has it."""
    plot.update_layout(
        title={"text": title, "x": 0.02, "y": 1.0, "yref": "container", "yanchor": "top", "pad": {"t": 12}},
        margin={"t": _TITLE_PX},
        height=min((plot.layout.height or _HEIGHT_PX) + _TITLE_PX, _HEIGHT_PX),
    )


def write_pictures(study: optuna.Study, reading: Reading) -> None:
    """Write PNG files as artifacts of the study."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        with speaking_of(reading.folder.artifacts):
            reading.folder.artifacts.mkdir(exist_ok=True)
            store = artifacts_of(reading.folder)
            if store is None:
                raise EnvironmentFailure(f"{reading.folder.artifacts} is a link to another folder; remove the link")
            with undamaged(reading.folder):
                known = _known(study)
            for name, draw in pictures.PICTURES.items():
                _write_picture(study, store, f"{name}.png", draw, reading, known.get(f"{name}.png"))


def _known(study: optuna.Study) -> dict[str, str]:
    """Artifact name → id, which is the file name."""
    found = {meta.filename: meta.artifact_id for meta in get_all_artifact_meta(study)}
    return {name: each for name, each in found.items() if _ARTIFACT_ID.fullmatch(each)}


def _write_picture(
    study: optuna.Study,
    store: Artifacts,
    name: str,
    draw: Callable[[Reading], bytes],
    reading: Reading,
    artifact_id: str | None,
) -> None:
    if artifact_id is not None:
        write_atomically(reading.folder.artifacts / artifact_id, draw(reading))
        return
    with tempfile.TemporaryDirectory() as elsewhere:
        path = Path(elsewhere) / name
        path.write_bytes(draw(reading))
        upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=study, mimetype="image/png")
