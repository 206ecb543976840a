"""`autotune search`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autotune.cli.shared import (
    BEGAN_S,
    INTERRUPTED,
    STUDIES,
    device_option,
    json_option,
    print_json,
    print_path,
    set_option,
    spec_argument,
    stderr,
)

if TYPE_CHECKING:
    from autotune.execution import StartBackend
    from autotune.records import Progress, SearchResult
    from autotune.report.events import EventLog
    from autotune.search.storage import OpenStudy
    from autotune.spec import LoadedSpec
    from autotune.store import StudyFolder


@click.command()
@spec_argument
@click.option("--budget", help="Override the spec's budget: 90s, 10m, 1h30m.")
@click.option("--out", type=click.Path(path_type=Path), help="Study folder. Default: studies/NAME.")
@set_option
@click.option("--fresh", is_flag=True, help="Start over. An earlier study is kept under a new name.")
@json_option
@click.option("--use-all", is_flag=True, help="Use the whole budget, even if more trials are unlikely to help.")
@click.option("--quiet", is_flag=True, help="Show the result only.")
@click.option("--storage", metavar="URL", help="Database that keeps the study: postgresql://user@host/database.")
@click.option("--events", type=click.Path(path_type=Path), help="Append events to this file, as JSON lines.")
@device_option
def search(
    spec_path: Path,
    budget: str | None,
    out: Path | None,
    overrides: tuple[str, ...],
    fresh: bool,
    use_all: bool,
    as_json: bool,
    quiet: bool,
    storage: str | None,
    events: Path | None,
    device: str | None,
) -> None:
    """Find the fastest stable configuration for SPEC.

    Writes it to best.yaml in the study folder and prints that path on stdout. Run the same command on an unfinished
    study to continue it.
    """
    from autotune.spec import load_spec
    from autotune.store import StudyFolder

    loaded = load_spec(spec_path, overrides, budget=budget, device=device)
    folder = StudyFolder(out or STUDIES / loaded.spec.name)
    opened = _opened_on(storage) if storage is not None else None
    with _started(loaded, folder, fresh=fresh) as start_backend:
        from autotune.report.events import EventLog
        from autotune.search import Interrupted, open_study

        options = {
            "fresh": fresh,
            "began_s": BEGAN_S,
            "use_all": use_all,
            "open_study": opened or open_study,
            "start_backend": start_backend,
        }
        with EventLog(events) as log:
            try:
                result = _search(loaded, folder, log, quiet=quiet or as_json, options=options)
            except Interrupted as interruption:
                log.ended("interrupted", interruption.result, best=folder.best)
                if interruption.result is not None:
                    _show_result(interruption.result, folder, as_json=as_json)
                else:
                    stderr().print("interrupted before anything was measured; run the same command again")
                raise click.exceptions.Exit(INTERRUPTED) from None
            log.ended("done", result, best=folder.best)
    _show_result(result, folder, as_json=as_json)


def _opened_on(storage: str) -> OpenStudy:
    """Fails before anything starts if there is no such server or no driver for it."""
    from autotune.search import on_server

    return on_server(storage)


@contextlib.contextmanager
def _started(loaded: LoadedSpec, folder: StudyFolder, *, fresh: bool) -> Iterator[StartBackend]:
    """Start the process that runs trials first, because it takes seconds to load PyTorch, and import the rest
    meanwhile."""
    from autotune.execution import start_all

    if folder.is_running() or (not fresh and _is_spent(loaded, folder)):  # the search is about to say the first
        yield start_all
        return
    backend = start_all(loaded.spec.model_dump(mode="json", exclude_none=True), loaded.folder)
    try:
        yield lambda _spec, _folder: backend
    finally:
        backend.close()


def _is_spent(loaded: LoadedSpec, folder: StudyFolder) -> bool:
    """Whether a search of `folder` will start nothing."""
    if not folder.has_records():
        return False
    from autotune.search.spent import facts_of_the_spent

    elapsed_s = time.monotonic() - BEGAN_S
    return facts_of_the_spent(folder.read_trials(), loaded.spec.budget, elapsed_s) is not None


def _search(
    loaded: LoadedSpec, folder: StudyFolder, log: EventLog, *, quiet: bool, options: dict[str, Any]
) -> SearchResult:
    """`options`: of `autotune.search.search`."""
    from autotune.report.dashboard import noted
    from autotune.report.live import Screen
    from autotune.search import Listener, search

    with Screen(stderr(), quiet=quiet) as screen:

        def show(progress: Progress) -> None:
            screen(progress)
            log.on_progress(progress)

        with noted(folder):
            return search(loaded, folder, listener=Listener(on_progress=show, on_trial=log.on_trial), **options)


def _show_result(result: SearchResult, folder: StudyFolder, *, as_json: bool) -> None:
    from autotune.report.result import result_view

    if as_json:
        print_json(result.model_dump(mode="json"))
        return
    steps = []
    if result.already_finished:
        steps.append("this study was finished already; give a larger --budget to continue it, or --fresh to start over")
    if folder.aside is not None:
        steps.append(f"the earlier study is now in {folder.aside}")
    stderr().print(result_view(result.best, folder=folder.path, notes=result.notes, next_steps=steps))
    print_path(folder.best)
