"""The dashboard's server: listens only on this machine, one thread per request, and follows the study."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from autotune.errors import AutotuneError, SpecError
from autotune.report.dashboard.edits import RefusedEdit, checked_edit, read_edit
from autotune.report.dashboard.furnish import artifacts_of, write_figures, write_note
from autotune.report.dashboard.guard import READING, Application, Environ, Guard
from autotune.report.dashboard.view import view_of
from autotune.report.reading import Reading, read_study
from autotune.search.storage import stored_study, undamaged
from autotune.store import StudyFolder

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
_NOW_AND_THEN_S = 10.0
_LEAST_AGE_S = 2.0
"""A copy of the study is renewed only after this age, so that the dashboard does not slow down the running trial."""
_SILENCE_S = 30.0
"""A connection that sends nothing for so many seconds is closed, because each holds a thread."""

Stamp = tuple[tuple[int, int], ...]


class Server:
    """A context manager: listens from the start, answers while `run` is running.

    Raises SpecError for a port that is taken.
    """

    def __init__(self, folder: StudyFolder, *, port: int = 0, allow_edits: bool = False) -> None:
        """`port`: 0 chooses a free port."""
        try:
            self._server = _Threaded((HOST, port), _Quiet)
        except OSError as error:
            hint = "is taken" if error.errno == errno.EADDRINUSE else str(error.strerror)
            raise SpecError(f"--port: {port} {hint}; 0, the default, takes one that is free") from error
        self.port = int(self._server.server_port)
        self._server.set_app(Guard(_Following(folder), port=self.port, allow_edits=allow_edits))

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/"

    def run(self) -> None:
        """Serve until `stop`, or until an exception in the calling thread, such as Ctrl-C."""
        self._server.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        """Call it from another thread than the one in `run`."""
        self._server.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.server_close()


class _Following:
    """Optuna's dashboard on a copy of the study; the copy is renewed when the study has changed."""

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._editing = threading.Lock()
        """One edit at a time: what it holds in memory is the largest part of the server."""
        self._stamp: Stamp | None = None
        self._made_s = 0.0
        self._application: Application = _nothing
        self._study_id = 0

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")  # the dashboard expects it
        try:
            if environ["REQUEST_METHOD"] not in READING:
                return self._edit(environ, start_response)
            application = self._current()
        except AutotuneError as error:
            start_response("503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"{error}\n".encode()]
        if environ.get("PATH_INFO", "") in ("", "/"):
            start_response("302 Found", [("Location", f"/dashboard/studies/{self._study_id}")])
            return []
        return application(environ, start_response)

    def _current(self) -> Application:
        with self._lock:
            stamp = _stamp(self._folder)
            if stamp != self._stamp and time.monotonic() - self._made_s >= _LEAST_AGE_S:
                self._application = self._copy()
                self._stamp, self._made_s = stamp, time.monotonic()
            return self._application

    def _copy(self) -> Application:
        reading = _reading(self._folder)
        with stored_study(self._folder, writable=False) as told, undamaged(self._folder):
            study = view_of(told, reading, self._folder.path.absolute().name)
        if reading is not None:
            write_note(study, reading)
            # No pictures of a study that may still run: drawing would disturb the measurement.
            if not self._folder.is_running():
                write_figures(study, reading)
        self._study_id = study._study_id
        return _dashboard(study._storage, self._folder)

    def _edit(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Apply a change of notes, attributes or artifacts to `study.db`; trials belong to the search."""
        try:
            body = read_edit(environ)
            with self._editing, stored_study(self._folder, writable=True) as study:
                asked = checked_edit(environ, body, study)
                answer = list(_dashboard(study._storage, self._folder)(asked, start_response))
        except RefusedEdit as refusal:
            start_response(refusal.status, [("Content-Type", "text/plain; charset=utf-8")])
            return [f"{refusal}\n".encode()]
        with self._lock:
            self._stamp, self._made_s = None, 0.0
        return answer


def _dashboard(storage: Any, folder: StudyFolder) -> Application:
    from optuna_dashboard import wsgi

    application: Application = wsgi(storage, artifact_store=artifacts_of(folder))
    return application


def _reading(folder: StudyFolder) -> Reading | None:
    try:
        return read_study(folder)
    except SpecError:  # nothing has been measured yet
        return None


def _stamp(folder: StudyFolder) -> Stamp:
    """A value that changes when the study changes. SQLite first writes to a file next to the database. A database
    server does not report changes, so for a remote study the value also changes at intervals."""
    beside = folder.database.with_name(f"{folder.database.name}-wal")
    state = tuple(map(_state, (folder.best, folder.trials, folder.database, beside)))
    return (*state, (int(time.monotonic() / _NOW_AND_THEN_S), 0)) if folder.remote.exists() else state


def _state(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _nothing(_environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("503 Service Unavailable", [])
    return []


class _Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Like the standard library's method, without a network request for this machine's name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.socket.getsockname()[1]
        self.setup_environ()


class _Quiet(WSGIRequestHandler):
    timeout = _SILENCE_S

    def handle(self) -> None:
        """Like the standard library's method, but tolerates browsers that disconnect or send nothing."""
        with contextlib.suppress(OSError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)
