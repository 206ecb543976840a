"""The note that a search leaves in its study, in the time that the end of a search has."""

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
    """A search inside leaves what it came to, or has come to so far, as a note; figures and pictures are drawn when the
    dashboard is."""
    # Takes half a second, which is free as long as PyTorch is being loaded in another process.
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
