"""Run the quick start and draw what its terminal showed: `python docs/terminal_pictures.py`, two to three minutes.

Writes `pictures/search.svg` (the end of the search) and `pictures/live.svg` (the screen in the middle of it). With a
finished study, `python docs/terminal_pictures.py studies/quickstart`, it runs nothing and draws the end of that search.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
import tempfile
from pathlib import Path
from unittest import mock

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from autotune.cli import cli
from autotune.records import Progress
from autotune.report import live
from autotune.report.result import result_view
from autotune.store import StudyFolder

HERE = Path(__file__).parent
COMMAND = ["search", "specs/quickstart.yaml"]
WIDTH = 80
LIVE_WIDTH = 110
_FONTS = re.compile(r"\s*@font-face \{\{.*?\}\}", re.DOTALL)
"""Rich's template fetches its font from the network; a reader's own monospace font does."""


def main() -> None:
    console = _console(WIDTH)
    console.print(f"[bold]$ autotune {' '.join(COMMAND)}[/bold]\n")
    seen = _search(console) if len(sys.argv) == 1 else _show(console, StudyFolder(Path(sys.argv[1])))
    _draw(console, "search")
    if seen:
        console = _console(LIVE_WIDTH)
        console.print(live.progress_view(_in_the_middle(seen)))
        _draw(console, "live")


def _show(console: Console, study: StudyFolder) -> list[Progress]:
    """What `autotune search` prints at its end, of a finished study."""
    shown = Path("studies") / study.path.name
    console.print(result_view(study.read_best() or {}, folder=shown))
    console.print(str(shown / "best.yaml"))
    return []


def _search(console: Console) -> list[Progress]:
    seen: list[Progress] = []

    def keep(_screen: live.Screen, progress: Progress) -> None:
        seen.append(progress)

    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        mock.patch("autotune.cli.searching.stderr", lambda: console),
        mock.patch.object(live.Screen, "__call__", keep),
        contextlib.redirect_stdout(io.StringIO()) as printed,
    ):
        Path("specs").mkdir()
        shutil.copy(HERE.parent / COMMAND[1], COMMAND[1])
        cli.main([*COMMAND, "--quiet"], standalone_mode=False)
    console.print(printed.getvalue().strip())
    return seen


def _console(width: int) -> Console:
    return Console(record=True, width=width, file=io.StringIO(), force_terminal=True, highlight=False, emoji=False)


def _in_the_middle(seen: list[Progress]) -> Progress:
    """The last snapshot of the search itself in which a trial that has a figure was running."""
    exploring = [each for each in seen if each.running and each.running[0].predicted]
    timed = [each for each in exploring if each.running[0].samples_per_s]
    return (timed or exploring or seen)[-1]


def _draw(console: Console, name: str) -> None:
    console.print()  # the last line is cut off at its base
    svg = console.export_svg(title="autotune", code_format=_FONTS.sub("", CONSOLE_SVG_FORMAT), unique_id=name)
    if "url(http" in svg:
        raise SystemExit("rich's template has changed: the picture would fetch something")
    # A reader without Fira Code gets the next monospace font.
    path = HERE / "pictures" / f"{name}.svg"
    path.write_text(svg.replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono"), encoding="utf-8")


if __name__ == "__main__":
    main()
