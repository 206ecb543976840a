"""Commands on a finished study: `show`, `verify`, `export`."""

from __future__ import annotations

from pathlib import Path

import click

from autotune.cli.shared import (
    BEGAN_S,
    STUDIES,
    json_option,
    print_json,
    print_path,
    seconds,
    stderr,
    stdout,
)
from autotune.errors import SpecError

_FORMATS = "yaml, json, torch, timm, transformers, accelerate, lightning, deepspeed."
_RUNNABLE = "torch, transformers, accelerate, lightning."
PROMISE_BROKEN = 1


@click.command()
@click.argument("study", metavar="STUDY")
@click.option("--verbose", "-v", is_flag=True, help="Also show what was not searched and why, and all notes.")
@json_option
def show(study: str, verbose: bool, as_json: bool) -> None:
    """Show the result of STUDY, a folder or a name under studies/."""
    from autotune.report.result import result_view
    from autotune.store import find_study

    folder = find_study(study, STUDIES)
    document = folder.read_best()
    if document is None:
        raise SpecError(f"{folder.path} has no result yet; run the search again")
    if as_json:
        print_json(document)
    else:
        stdout().print(result_view(document, folder=folder.path, verbose=verbose))


@click.command()
@click.argument("study", metavar="STUDY")
@click.option("--budget", default="1m", show_default=True, help="Time for the measurement: 30s, 1m, 10m.")
@click.option("--export", "target", help=f"Measure an export instead, against the study's trials: {_RUNNABLE}")
@json_option
@click.option("--quiet", is_flag=True, help="Show the answer only.")
def verify(study: str, budget: str, target: str | None, as_json: bool, quiet: bool) -> None:
    """Measure the result of STUDY against its baseline again.

    Runs in new processes. Exits with 0 if the speed-up is still what the search measured; with 1 if not, or if the
    budget is too short to tell.
    """
    from autotune.report.terminal import export_verification_view, verification_view
    from autotune.search import verify as run_verify
    from autotune.store import find_study

    budget_s = seconds("--budget", budget)
    console = stderr()

    def say(message: str) -> None:
        if not (quiet or as_json):
            console.print(message)

    folder = find_study(study, STUDIES)
    if target is None:
        found = run_verify(folder, budget_s=budget_s, began_s=BEGAN_S, on_message=say)
        view, holds, document = verification_view(found), found.holds, found.model_dump(mode="json")
    else:
        from autotune.bench.exported import verify_export

        kept = verify_export(folder, target, budget_s=budget_s, began_s=BEGAN_S, on_message=say)
        view, holds, document = export_verification_view(kept), kept.holds, kept.model_dump(mode="json")
    if as_json:
        print_json(document)
    else:
        stdout().print(view)
    if not holds:
        raise click.exceptions.Exit(PROMISE_BROKEN)


@click.command()
@click.argument("study", metavar="STUDY")
@click.option("--to", "target", required=True, metavar="FORMAT", help=_FORMATS)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Output folder. Default: exports/ in the study folder; for a lone best.yaml, the current folder.",
)
@json_option
def export(study: str, target: str, out: Path | None, as_json: bool) -> None:
    """Write the result of STUDY for another tool.

    STUDY is a folder, a name under studies/ or a best.yaml. Prints the paths of the files on stdout, and on stderr what
    you have to set yourself.
    """
    from autotune.export import TARGETS, read_source
    from autotune.export import export as render
    from autotune.export.write import write

    if target not in TARGETS:
        raise SpecError(f"--to: no target '{target}'; there are {', '.join(sorted(TARGETS))}")
    source = read_source(study)
    made = render(source, target)
    paths = write(made, source, out)
    if as_json:
        said = {"about": list(made.about), "notes": list(made.notes)}
        print_json({"target": target, "files": list(map(str, paths)), **said})
        return
    for line in (*made.about, *(f"note: {note}" for note in made.notes)):
        click.echo(line, err=True)
    for path in paths:
        print_path(path)
