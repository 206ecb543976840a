"""Who gets through to the dashboard: its own pages, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from autotune.report.dashboard.guard import Environ, Guard

PORT = 8123
OWN = f"127.0.0.1:{PORT}"


def application(_environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("x-frame-options", "ALLOWALL")])
    return [b"let through"]


def answer(*, allow_edits: bool = False, **environ: str) -> tuple[str, dict[str, str]]:
    """Status and headers of what comes back."""
    found: list[tuple[str, list[tuple[str, str]]]] = []
    guard = Guard(application, port=PORT, allow_edits=allow_edits)
    request = {"REQUEST_METHOD": "GET", "HTTP_HOST": OWN, "PATH_INFO": "/"} | environ
    body = b"".join(guard(request, lambda status, headers, *_: found.append((status, headers))))
    status, headers = found[0]
    assert (body == b"let through") == (status == "200 OK")
    return status, dict(headers)


def status_of(**environ: Any) -> str:
    return answer(**environ)[0][:3]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("host", [OWN, f"localhost:{PORT}", f"LocalHost:{PORT}"])
def test_looking_is_allowed(method: str, host: str) -> None:
    assert status_of(REQUEST_METHOD=method, HTTP_HOST=host) == "200"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "get", "BREW"])
def test_nothing_else_is(method: str) -> None:
    assert status_of(REQUEST_METHOD=method) == "403"


@pytest.mark.parametrize(
    "host", ["example.org", f"example.org:{PORT}", "127.0.0.1", "127.0.0.1:1", "", f"127.0.0.1:{PORT}.x"]
)
@pytest.mark.parametrize("allow_edits", [True, False])
def test_a_name_that_points_here_is_refused(host: str, allow_edits: bool) -> None:
    assert status_of(HTTP_HOST=host, allow_edits=allow_edits) == "403"


@pytest.mark.parametrize(
    "origin", ["http://example.org", "null", "", f"https://{OWN}", "http://127.0.0.1:1", f"http://{OWN}@example.org"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_sites_page_is_refused(origin: str, method: str) -> None:
    assert status_of(HTTP_ORIGIN=origin, REQUEST_METHOD=method, allow_edits=True) == "403"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_another_site_embeds_is_refused(site: str) -> None:
    assert status_of(HTTP_SEC_FETCH_SITE=site, HTTP_SEC_FETCH_MODE="no-cors") == "403"


def test_a_link_from_another_site_may_be_followed_but_changes_nothing() -> None:
    link = {
        "HTTP_SEC_FETCH_SITE": "cross-site",
        "HTTP_SEC_FETCH_MODE": "navigate",
        "HTTP_REFERER": "http://example.org/",
    }
    assert status_of(**link) == "200"
    assert status_of(**link, REQUEST_METHOD="POST", allow_edits=True) == "403"


def test_edits_come_from_its_own_pages() -> None:
    assert (
        status_of(REQUEST_METHOD="PUT", HTTP_ORIGIN=f"http://{OWN}", HTTP_REFERER=f"http://{OWN}/x", allow_edits=True)
        == "200"
    )
    assert status_of(REQUEST_METHOD="PUT", HTTP_REFERER="http://example.org/", allow_edits=True) == "403"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_other_page_may_frame_it_or_guess_its_types(method: str) -> None:
    _, headers = answer(REQUEST_METHOD=method)
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "x-frame-options" not in headers
