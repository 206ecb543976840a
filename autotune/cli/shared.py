"""What all commands share: options, consoles, JSON, durations."""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autotune.errors import SpecError
from autotune.report.cleaning import one_line

if TYPE_CHECKING:
    from rich.console import Console

BEGAN_S = time.monotonic()
"""The budget limits the whole command, imports included."""
STUDIES = Path("studies")
INTERRUPTED = 130
_MOST_OF_A_PATH = 4096
_WIDTH_OF_A_FILE = 160
"""Line width if there is no terminal."""

set_option = click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override a field of the spec.")
device_option = click.option("--device", help="Override the spec's device: auto, cpu, cuda, cuda:1, mps, xpu.")
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else."
)
spec_argument = click.argument("spec_path", metavar="SPEC", type=click.Path(path_type=Path))


def seconds(option: str, text: str) -> float:
    from autotune.spec.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise SpecError(f"{option}: {error}") from error


def command_line() -> str:
    """The command as the user typed it, recorded in files that it writes."""
    return shlex.join(["autotune", *sys.argv[1:]])


def stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False)


def stdout() -> Console:
    from rich.console import Console

    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)


def print_path(path: Path) -> None:
    """Print the path on stdout: unchanged for a program, without control characters for a terminal."""
    click.echo(one_line(path, _MOST_OF_A_PATH) if sys.stdout.isatty() else path)


def print_json(document: Any) -> None:
    """Print JSON. Numbers that are not finite, such as the open end of an interval after one run, become null, because
    JSON has none."""
    click.echo(json.dumps(_finite(document), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
