"""The command line: the only module that prints or exits. What a command needs is imported when it runs, so that
`autotune --help` is instant."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from autotune import __version__
from autotune.errors import AutotuneError, SpecError

if TYPE_CHECKING:
    from rich.console import Console

    from autotune.records import SearchResult
    from autotune.store import StudyFolder

_BEGAN_S = time.monotonic()
"""The budget bounds the whole command, imports included."""
_STUDIES = Path("studies")
_VALIDATE_LIMIT_S = 300.0
_FORMATS = "yaml, json, torch, timm, transformers, accelerate, lightning, deepspeed."
_WIDTH_OF_A_FILE = 160
"""Characters of a line that no terminal breaks."""
INTERRUPTED = 130
PROMISE_BROKEN = 1


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="autotune")
def cli() -> None:
    """Find the fastest stable way to train your model on your data on this machine, inside a time budget."""


_set_option = click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override a field of the spec.")
_device_option = click.option("--device", help="Override the spec's device: auto, cpu, cuda, cuda:1, mps, xpu.")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, nothing else.")
_spec_argument = click.argument("spec_path", metavar="SPEC", type=click.Path(path_type=Path))


@cli.command()
@_spec_argument
@click.option("--budget", help="Override the spec's budget: 90s, 10m, 1h30m.")
@click.option("--out", type=click.Path(path_type=Path), help="Study folder; silent: studies/NAME.")
@_set_option
@click.option("--fresh", is_flag=True, help="Start over; an earlier study is kept aside under a new name.")
@_json_option
@click.option("--quiet", is_flag=True, help="Show the result only.")
@_device_option
def search(
    spec_path: Path,
    budget: str | None,
    out: Path | None,
    overrides: tuple[str, ...],
    fresh: bool,
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    """Search the fastest stable configuration for SPEC and write it to the study folder.

    The same command on an unfinished study goes on where it stopped. Prints the path of best.yaml on stdout.
    """
    from autotune.report.terminal import Screen
    from autotune.search import Interrupted, Listener
    from autotune.search import search as run_search
    from autotune.spec import load_spec
    from autotune.store import StudyFolder

    loaded = load_spec(spec_path, overrides, budget=budget, device=device)
    folder = StudyFolder(out or _STUDIES / loaded.spec.name)
    console = _stderr()
    try:
        with Screen(console, quiet=quiet or as_json) as screen:
            result = run_search(loaded, folder, fresh=fresh, began_s=_BEGAN_S, listener=Listener(on_progress=screen))
    except Interrupted as interruption:
        if interruption.result is not None:
            _show_result(interruption.result, folder, as_json=as_json)
        else:
            console.print("interrupted before anything was measured; the same command begins or goes on")
        raise click.exceptions.Exit(INTERRUPTED) from None
    _show_result(result, folder, as_json=as_json)


@cli.command()
@_spec_argument
@_set_option
@_json_option
@_device_option
def validate(spec_path: Path, overrides: tuple[str, ...], as_json: bool, device: str | None) -> None:
    """Check SPEC and show the space that would be searched on this machine. Trains nothing."""
    from autotune.report import words
    from autotune.report.terminal import facts_view, space_view
    from autotune.search import look_around
    from autotune.spec import knob_values, load_spec

    loaded = load_spec(spec_path, overrides, device=device)
    facts, space = look_around(loaded, _VALIDATE_LIMIT_S)
    constraints = loaded.spec.parsed_constraints()
    if as_json:
        of_measures = [constraint.text for constraint in constraints if not constraint.on_knobs]
        extent = {"configurations": None if space.size == float("inf") else space.size}
        document = {"facts": facts.model_dump(mode="json"), **space.to_dict(), **extent}
        _print_json(document | {"measured_constraints": of_measures, "dropped": [str(d) for d in space.dropped]})
        return
    baseline = knob_values(space.baseline)
    searched = {dimension.knob: dimension.searched for dimension in space.dimensions}
    rows = [
        (knob, ", ".join(map(words.setting, values)), words.setting(baseline[knob]))
        for knob, values in searched.items()
    ]
    size = words.configurations(space.size, space.points)
    if space.allowed:
        size += f" of {words.configurations(space.unconstrained.size, space.points)}"
    lines = [
        words.constraint(
            constraint.text, before_trials=constraint.on_knobs, baseline_meets=constraint.violation(baseline) <= 0
        )
        for constraint in constraints
    ]
    console = _stdout()
    console.print(facts_view(facts))
    console.print(space_view(rows, size, [str(dropped) for dropped in space.dropped], lines))


@cli.command()
@click.argument("path", metavar="[FILE]", type=click.Path(path_type=Path), default=Path("autotune.yaml"))
def init(path: Path) -> None:
    """Write a commented spec to FILE (autotune.yaml) that validates as it stands."""
    from autotune.spec import scaffold_text, study_name

    if path.exists():
        raise SpecError(f"{path} exists already; give another file name")
    try:
        path.write_text(scaffold_text(study_name(path.stem)), encoding="utf-8")
    except OSError as error:
        raise SpecError(f"cannot write {path}: {error.strerror}") from error
    click.echo(path)


@cli.command()
def schema() -> None:
    """Print the JSON Schema of specs, for editors."""
    from autotune.spec import json_schema

    _print_json(json_schema())


@cli.command()
@_json_option
@_device_option
def doctor(as_json: bool, device: str | None) -> None:
    """Show what this machine offers to a search."""
    from autotune.execution import look_at_machine
    from autotune.report.terminal import machine_view

    device_facts, host_facts = look_at_machine(device or "auto")
    if as_json:
        _print_json({"device": device_facts.model_dump(mode="json"), "host": host_facts.model_dump(mode="json")})
    else:
        _stdout().print(machine_view(device_facts, host_facts))


@cli.command()
@click.argument("study", metavar="STUDY")
@_json_option
def show(study: str, as_json: bool) -> None:
    """Show the result of STUDY, a folder or a name under studies/."""
    from autotune.report.terminal import best_view
    from autotune.store import find_study

    folder = find_study(study, _STUDIES)
    document = folder.read_best()
    if document is None:
        raise SpecError(f"{folder.path} has no result yet; run its search again")
    if as_json:
        _print_json(document)
    else:
        _stdout().print(best_view(document))


@cli.command()
@click.argument("study", metavar="STUDY")
@click.option("--budget", default="1m", show_default=True, help="Time for it: 30s, 1m, 10m.")
@click.option("--export", "target", help="Measure what is exported to this target against the study's trials: torch.")
@_json_option
@click.option("--quiet", is_flag=True, help="Show the answer only.")
def verify(study: str, budget: str, target: str | None, as_json: bool, quiet: bool) -> None:
    """Measure the configuration that STUDY emitted against its baseline again, in fresh processes.

    Ends with 0 when the promise holds, with 1 when it does not, or when the budget is too short to say.
    """
    from autotune.report.terminal import export_verification_view, verification_view
    from autotune.search import verify as run_verify
    from autotune.store import find_study

    budget_s = _seconds("--budget", budget)
    console = _stderr()

    def say(message: str) -> None:
        if not (quiet or as_json):
            console.print(message)

    folder = find_study(study, _STUDIES)
    if target is None:
        found = run_verify(folder, budget_s=budget_s, began_s=_BEGAN_S, on_message=say)
        view, holds, document = verification_view(found), found.holds, found.model_dump(mode="json")
    else:
        from autotune.bench.exported import verify_export

        kept = verify_export(folder, target, budget_s=budget_s, began_s=_BEGAN_S, on_message=say)
        view, holds, document = export_verification_view(kept), kept.holds, kept.model_dump(mode="json")
    if as_json:
        _print_json(document)
    else:
        _stdout().print(view)
    if not holds:
        raise click.exceptions.Exit(PROMISE_BROKEN)


@cli.command()
@click.argument("study", metavar="STUDY")
@click.option("--to", "target", required=True, metavar="FORMAT", help=_FORMATS)
@click.option("--out", type=click.Path(path_type=Path), help="Folder; silent: exports/ in the study's, or this one.")
@_json_option
def export(study: str, target: str, out: Path | None, as_json: bool) -> None:
    """Write the configuration of STUDY, a folder, a name or a best.yaml, in the words of another tool.

    Prints the paths of what was written on stdout, and on stderr what the target leaves to you.
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
        _print_json({"target": target, "files": list(map(str, paths)), **said})
        return
    for line in (*made.about, *(f"note: {note}" for note in made.notes)):
        click.echo(line, err=True)
    for path in paths:
        click.echo(path)


@cli.command()
@_spec_argument
@click.option("--out", type=click.Path(path_type=Path), help="Table; silent: studies/recorded/DEVICE-NAME.json.gz.")
@click.option("--sample", type=click.IntRange(min=2), help="So many configurations, spread evenly; silent: all.")
@click.option("--repeats", type=click.IntRange(min=1), default=1, show_default=True, help="Processes for each of them.")
@click.option("--trial", help="Warm-up and timed steps of each: 1.5s, 5s; silent: as in a search of the spec's budget.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the sample and the order.")
@_set_option
@_json_option
@click.option("--quiet", is_flag=True, help="Print the table's path only.")
@_device_option
def sweep(
    spec_path: Path,
    out: Path | None,
    sample: int | None,
    repeats: int,
    trial: str | None,
    seed: int,
    overrides: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    """Measure every configuration of SPEC's space into one table, for `autotune replay` and for pandas.

    The same command goes on with a table that was interrupted. Prints the table's path on stdout.
    """
    from autotune.bench.sweep import SweepPlan, SweepProgress
    from autotune.bench.sweep import sweep as run_sweep
    from autotune.report.terminal import sweep_line
    from autotune.search.budget import Budget
    from autotune.spec import load_spec

    loaded = load_spec(spec_path, overrides, device=device)
    trial_s = _seconds("--trial", trial) if trial else Budget(loaded.spec.budget, time.monotonic).trial_s
    console = _stderr()

    def say(progress: SweepProgress) -> None:
        if not (quiet or as_json):
            console.print(sweep_line(progress.run, progress.done, progress.planned, progress.remaining_s))

    try:
        path = run_sweep(
            loaded,
            SweepPlan(trial_s=trial_s, repeats=repeats, sample=sample, seed=seed),
            out=out,
            studies=_STUDIES,
            command=_command_line(),
            on_run=say,
        )
    except KeyboardInterrupt:
        console.print("interrupted; what was measured is kept, and the same command goes on")
        raise click.exceptions.Exit(INTERRUPTED) from None
    if as_json:
        _print_json({"table": str(path)})
    else:
        click.echo(path)


@cli.command()
@click.argument("tables", metavar="TABLE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--strategy", default="auto,gp,tpe,random", show_default=True, help="To compare; NAME-seeds: unseeded.")
@click.option("--seeds", type=click.IntRange(min=1), default=20, show_default=True, help="Searches of each.")
@click.option("--budget", default="5m", show_default=True, help="Trial seconds of each search, at the recorded costs.")
@click.option("--jobs", type=click.IntRange(min=1), default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw what was found over time: FILE.png, .svg or .html.")
@_json_option
@click.option("--quiet", is_flag=True, help="Show the table only.")
def replay(
    tables: tuple[Path, ...],
    strategy: str,
    seeds: int,
    budget: str,
    jobs: int,
    plot: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run search strategies against TABLE, recorded by `autotune sweep`: no training, the recorded costs and noise."""
    from autotune.bench.plot import FORMATS, write_plot
    from autotune.bench.replay import Plan, check
    from autotune.bench.replay import replay as run_replay
    from autotune.report.terminal import replay_view

    budget_s = _seconds("--budget", budget)
    if plot is not None and plot.suffix not in FORMATS:
        raise SpecError(f"--plot: give a file that ends in {', '.join(FORMATS)}")
    names = list(dict.fromkeys(name.strip() for name in strategy.split(",") if name.strip()))
    plan = Plan(strategies=names, seeds=seeds, budget_s=budget_s, jobs=jobs)
    check(tables, plan)
    outcomes = []
    with _stderr().status("") as status:
        for path in tables:

            def say(done: int, planned: int, name: str = path.name) -> None:
                if not (quiet or as_json):
                    status.update(f"{name}: {done} of {planned} searches")

            outcomes.append(run_replay(path, plan, say))
    documents = [outcome.document() for outcome in outcomes]
    if plot is not None:
        write_plot(plot, outcomes)
    if as_json:
        _print_json(documents[0] if len(documents) == 1 else {"tables": documents})
    else:
        _stdout().print(replay_view(documents))


def _seconds(option: str, text: str) -> float:
    from autotune.spec.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise SpecError(f"{option}: {error}") from error


def _command_line() -> str:
    """As the user typed it, for a record of how a file came to be."""
    return shlex.join(["autotune", *sys.argv[1:]])


def _show_result(result: SearchResult, folder: StudyFolder, *, as_json: bool) -> None:
    from autotune.report.terminal import result_view

    if as_json:
        _print_json(result.model_dump(mode="json"))
        return
    steps = []
    if result.best["stability"]["verdict"] == "stable":
        steps.append(f"set these in your training code; {folder.best} holds them all")
    if result.already_finished:
        steps.append("this study was finished before; a larger --budget goes on, --fresh starts over")
    if folder.aside is not None:
        steps.append(f"the earlier study is kept in {folder.aside}")
    _stderr().print(result_view(result, next_steps=steps))
    click.echo(folder.best)


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False)


def _stdout() -> Console:
    from rich.console import Console

    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=2, allow_nan=False))


def main() -> NoReturn:
    """Run the command and leave with the code that the README's table gives to its outcome."""
    for name in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(name) is not signal.SIG_IGN:  # nohup asks to be left alone
            signal.signal(name, _interrupt)
    code = _run_command()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Taking down in order what the sampler has imported would cost seconds of the budget, and has nothing left to do.
    os._exit(code)


def _run_command() -> int:
    try:
        left_with = cli.main(standalone_mode=False)
    except (click.ClickException, AutotuneError) as error:
        _say(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        return 0
    return left_with if isinstance(left_with, int) else 0


def _say(error: click.ClickException | AutotuneError) -> None:
    if isinstance(error, click.ClickException):
        error.show()
        return
    for line in error.problems if isinstance(error, SpecError) else (str(error),):
        click.echo(f"error: {line}", err=True)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
