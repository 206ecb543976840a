"""The edits that `--allow-edits` accepts from the browser: notes, attributes and artifacts. They are checked first,
because the dashboard itself answers unexpected input with a server error."""

from __future__ import annotations

import io
import json
import re
from typing import Annotated, Any, NoReturn

import optuna
from pydantic import Field, JsonValue

from autotune.report.dashboard.guard import Environ
from autotune.untrusted import Checked, check

MOST_BYTES = 8 * 2**20
"""The largest edit. The dashboard holds several copies of an upload in memory."""
_CHUNK_BYTES = 2**16
_ROUTES = re.compile(
    r"PUT /api/studies/(?P<noted_study>\d+)(/(?P<noted_trial>\d+))?/note"
    r"|POST /api/trials/(?P<attributes_trial>\d+)/user-attrs"
    r"|POST /api/artifacts/(?P<upload_study>\d+)(/(?P<upload_trial>\d+))?"
    r"|DELETE /api/artifacts/(?P<delete_study>\d+)(/(?P<delete_trial>\d+))?/[0-9a-fA-F-]+",
    re.ASCII,
)
"""The allowed requests: they do not change what a running search needs from its study."""


class _Note(Checked):
    version: Annotated[int, Field(ge=0, lt=2**31)]
    body: Annotated[str, Field(max_length=100_000)]


class _Attributes(Checked):
    user_attrs: Annotated[dict[str, JsonValue], Field(min_length=1)]


_BASE64 = "[A-Za-z0-9+/]"


class _Artifact(Checked):
    file: Annotated[str, Field(pattern=rf"^data:[^,]*,({_BASE64}{{4}})*({_BASE64}{{2}}==|{_BASE64}{{3}}=)?$")]
    filename: Annotated[str, Field(max_length=255)] = ""


_BODIES: dict[str, type[Checked]] = {"PUT": _Note, "user-attrs": _Attributes, "POST": _Artifact}


class RefusedEdit(Exception):
    """`status`: the HTTP status; the message is one line for the sender."""

    def __init__(self, status: str, message: str) -> None:
        self.status = status
        super().__init__(message)


def checked_edit(environ: Environ, body: bytes, study: optuna.Study) -> Environ:
    """The request with its body, for the dashboard. Raises RefusedEdit."""
    method = environ["REQUEST_METHOD"]
    ids = {name: int(number[:19]) for name, number in find_edit(environ).items() if number is not None}
    _require_known(ids, study, is_note=method == "PUT")
    if method != "DELETE":
        _require(_BODIES["user-attrs" if "attributes_trial" in ids else method], body)
    return environ | {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}


def _require(model: type[Checked], body: bytes) -> None:
    try:
        check(model, json.loads(body, parse_constant=_no_constant))
    except (ValueError, RecursionError) as error:
        line = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RefusedEdit("400 Bad Request", f"not a valid edit: {line}") from None


def find_edit(environ: Environ) -> dict[str, str | None]:
    """The ids in the path of an allowed request. Raises RefusedEdit for all others."""
    found = _ROUTES.fullmatch(f"{environ['REQUEST_METHOD']} {environ.get('PATH_INFO', '').rstrip('/')}")
    if found is None:
        message = "autotune creates studies and trials; delete the folder to remove them"
        raise RefusedEdit("403 Forbidden", message)
    return found.groupdict()


def _require_known(ids: dict[str, int], study: optuna.Study, *, is_note: bool) -> None:
    trials = {trial._trial_id: trial for trial in study.get_trials(deepcopy=False)}
    for name, number in ids.items():
        if name.endswith("study") and number != study._study_id:
            raise RefusedEdit("404 Not Found", "there is no such study")
        if name.endswith("trial") and number not in trials:
            raise RefusedEdit("404 Not Found", "the study has no such trial")
        if name.endswith("trial") and trials[number].state.is_finished() and not is_note:
            raise RefusedEdit("409 Conflict", "a trial that has ended takes notes only")


def read_edit(environ: Environ) -> bytes:
    """The body of an allowed request. Raises RefusedEdit."""
    find_edit(environ)
    if environ["REQUEST_METHOD"] == "DELETE":
        return b""
    stated = environ.get("CONTENT_LENGTH") or ""
    if not re.fullmatch(r"\d{1,18}", stated, re.ASCII):
        raise RefusedEdit("411 Length Required", "an edit needs a Content-Length, as browsers send it")
    length, stream = int(stated), environ["wsgi.input"]
    if length > MOST_BYTES:
        _read_past(stream, length)
        raise RefusedEdit("413 Content Too Large", f"an edit is at most {MOST_BYTES // 2**20} MiB long")
    try:
        body: bytes = stream.read(length)
    except OSError:  # the browser is gone, or sends nothing any more
        raise RefusedEdit("408 Request Timeout", "the edit did not arrive") from None
    if len(body) < length:
        raise RefusedEdit("400 Bad Request", "the edit is shorter than its Content-Length")
    return body


def _read_past(stream: Any, length: int) -> None:
    """Read the rest of the request, because a browser that is still sending would see a broken connection, not the
    answer."""
    while length > 0:
        try:
            read = len(stream.read(min(length, _CHUNK_BYTES)))
        except OSError:
            return
        if not read:
            return
        length -= read


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
