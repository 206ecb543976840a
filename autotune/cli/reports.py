"""`autotune report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from autotune.cli.shared import STUDIES, json_option, print_json, print_path
from autotune.errors import SpecError

_MOST_STUDIES = 2
_SUMMARY = ("study", "config", "measured", "baseline", "speedup", "created")


@click.command()
@click.argument("studies", metavar="STUDY [OTHER]", nargs=-1, required=True)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Output file. Default: report.html in STUDY."
)
@click.option("--open/--no-open", "open_it", default=False, help="Open it in the web browser.")
@json_option
def report(studies: tuple[str, ...], out: Path | None, open_it: bool, as_json: bool) -> None:
    """Explain what STUDY found in one HTML file.

    STUDY is a folder or a name under studies/, and may still be running. With OTHER, compare the two. The file needs
    no network. Prints its path on stdout.
    """
    from autotune.report.html import comparison_page, report_page, write_page
    from autotune.report.reading import read_study
    from autotune.store import find_study

    if len(studies) > _MOST_STUDIES:
        raise SpecError(f"report: {len(studies)} studies; give one to report, or two to compare")
    readings = [read_study(find_study(study, STUDIES)) for study in studies]
    one = readings[0]
    if len(readings) == 1:
        path, content = out or one.folder.report, report_page(one)
    else:
        path, content = out or one.folder.comparison(readings[1].folder), comparison_page(*readings)
    write_page(path, content)
    if as_json:
        print_json({"path": str(path), "studies": [_summary(reading.document) for reading in readings]})
    else:
        print_path(path)
    if open_it:
        import webbrowser

        webbrowser.open(path.absolute().as_uri())


def _summary(document: dict[str, Any]) -> dict[str, Any]:
    """The head of a `best.yaml`, without its checks and its history."""
    return {**{key: document[key] for key in _SUMMARY}, "verdict": document["stability"]["verdict"]}
