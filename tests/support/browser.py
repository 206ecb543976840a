"""Headless Chromium, as a Linux distribution packages it: opens a page and tells what it became, what it said on the
console, and what it asked the network for. Needs nothing that is downloaded for a test."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_CONSOLE = re.compile(r"^\[[^\]]*:CONSOLE(?:\(\d+\)|:\d+)\] (.*)$", re.MULTILINE)
_NO_PAGE = (None, "not an origin")
"""Who asks for what the browser itself wants: updates, the time, dictionaries."""
_DEADLINE_S = 120


@dataclass(frozen=True, kw_only=True)
class Visit:
    """What came of opening a page."""

    dom: str
    """The document after its scripts have run."""
    console: tuple[str, ...]
    """All messages, whatever their level: Chromium's log does not tell errors from others."""
    requests: tuple[str, ...]
    """Addresses that the page asked the network for, itself left out; files are no network."""


def chromium() -> str:
    """The browser's path. Skips the test where none is installed."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip(f"no browser here: none of {', '.join(_NAMES)}")
    return found


def visit(url: str, folder: Path, *, width: int = 1280, wait_ms: int = 10_000) -> Visit:
    """Open `url` and let `wait_ms` of the page's own time pass, which ends early when nothing is left to do.

    `folder` takes the browser's profile and log. No name but 127.0.0.1 resolves: a page that asks for more shows it.
    """
    net_log = folder / "net.json"
    run = subprocess.run(
        [
            *_command(folder, width),
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            f"--log-net-log={net_log}",
            "--enable-logging=stderr",
            "--v=0",
            f"--virtual-time-budget={wait_ms}",
            "--dump-dom",
            url,
        ],
        capture_output=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode(errors="replace")[-2000:]
    said = _CONSOLE.findall(run.stderr.decode(errors="replace"))
    return Visit(dom=run.stdout.decode(errors="replace"), console=tuple(said), requests=_asked_for(net_log, url))


def _command(folder: Path, width: int) -> list[str]:
    return [
        chromium(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width},2000",
    ]


def _asked_for(net_log: Path, url: str) -> tuple[str, ...]:
    written = net_log.read_text(errors="replace").rstrip()
    try:
        document = json.loads(written)
    except ValueError:  # the browser ended before it closed its list
        document = json.loads(written.rstrip(",") + "]}")
    entries = [event.get("params") or {} for event in document["events"]]
    asked = [entry["url"] for entry in entries if "url" in entry and entry.get("initiator") not in _NO_PAGE]
    return tuple(address for address in dict.fromkeys(asked) if address != url)
