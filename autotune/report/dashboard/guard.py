"""Protects the dashboard, which itself accepts any request from anywhere.

A page of any site can make the browser send requests to 127.0.0.1. Such requests are recognised by `Origin` and
`Sec-Fetch-Site`, which no script can forge. If a foreign DNS server points a name at this machine, both look right, but
`Host` shows the name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

READING = ("GET", "HEAD")
_OWN_SITES = ("", "same-origin", "none")
"""`none`: typed in, or from a bookmark; empty: a program, or a browser too old to say."""
_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
_OF_ARTIFACTS = (("Content-Disposition", "attachment"), ("Content-Security-Policy", "default-src 'none'; sandbox"))
"""Headers for files that anybody may have written, such as HTML: shown as pictures or saved, never as pages of this
site."""

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class Guard:
    """A WSGI application that accepts requests from the dashboard's own pages, and refuses all others with 403."""

    def __init__(self, application: Application, *, port: int, allow_edits: bool) -> None:
        self._application = application
        self._allow_edits = allow_edits
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        refusal = self._refusal(environ)
        if refusal:
            body = f"{refusal}\n".encode()
            start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8"), *_HEADERS])
            return [body]

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            is_artifact = environ.get("PATH_INFO", "").startswith("/artifacts")
            own = (*_HEADERS, *(_OF_ARTIFACTS if is_artifact else ()))
            names = {name.lower() for name, _ in own}
            theirs = [(name, value) for name, value in headers if not _is_replaced(name.lower(), names)]
            return start_response(status, [*theirs, *own], *rest)

        return self._application(environ, start)

    def _refusal(self, environ: Environ) -> str | None:
        method = environ["REQUEST_METHOD"]
        if method not in READING and not self._allow_edits:
            return f"{method}: this dashboard is read-only; start it with --allow-edits to change it"
        if environ.get("HTTP_HOST", "").lower() not in self._hosts:
            return "this dashboard answers only at 127.0.0.1 and localhost"
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and not self._is_own(origin):
            return "this dashboard answers only its own pages"
        if environ.get("HTTP_SEC_FETCH_SITE", "") in _OWN_SITES or _follows_a_link(environ):
            return None if method in READING else self._foreign_referer(environ)
        return "this dashboard answers only its own pages"

    def _foreign_referer(self, environ: Environ) -> str | None:
        """Why a change from another page is refused; links from other pages are allowed."""
        referer = environ.get("HTTP_REFERER")
        return None if referer is None or self._is_own(referer) else "only this dashboard's own pages may change it"

    def _is_own(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
        except ValueError:  # such as `http://[`
            return False
        return parts.scheme == "http" and parts.netloc.lower() in self._hosts


def _is_replaced(name: str, own: set[str]) -> bool:
    """Whether the dashboard's own header of that name is left out: it lets pages of any site read artifacts."""
    return name in own or name.startswith("access-control-")


def _follows_a_link(environ: Environ) -> bool:
    """Whether the request follows a link from another site, whose owner cannot read the answer."""
    return environ["REQUEST_METHOD"] in READING and environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
