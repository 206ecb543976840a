"""The note that a search writes into its study, fast enough for the end of a search."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from autotune.errors import AutotuneError
from autotune.report.dashboard.furnish import write_note
from autotune.report.reading import read_study
from autotune.search import Interrupted
from autotune.search.storage import stored_study
from autotune.store import StudyFolder

log = logging.getLogger(__name__)


@contextmanager
def noted(folder: StudyFolder) -> Iterator[None]:
    """A search inside this context writes its result, or its state so far, as a note. Figures and pictures are drawn
    later, with the dashboard."""
    # Takes half a second, but costs nothing while another process loads PyTorch.
    threading.Thread(target=import_module, args=("optuna_dashboard",), daemon=True).start()
    try:
        yield
    except Interrupted:
        _leave_note(folder)
        raise
    _leave_note(folder)


def _leave_note(folder: StudyFolder) -> None:
    if not folder.best.exists():
        return
    try:
        reading = read_study(folder)
        with stored_study(folder, writable=True) as study:
            write_note(study, reading)
    except AutotuneError as error:  # the result itself has been written
        log.warning("no note in %s: %s", folder.database, error)
