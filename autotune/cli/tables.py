"""Commands on recorded tables: `sweep`, `replay`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from autotune.cli.shared import (
    INTERRUPTED,
    STUDIES,
    command_line,
    device_option,
    json_option,
    print_json,
    print_path,
    seconds,
    set_option,
    spec_argument,
    stderr,
    stdout,
)
from autotune.errors import SpecError


@click.command()
@spec_argument
@click.option(
    "--out", type=click.Path(path_type=Path), help="Table file. Default: studies/recorded/DEVICE-NAME.json.gz."
)
@click.option("--sample", type=click.IntRange(min=2), help="Number of configurations, spread evenly. Default: all.")
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Runs of each configuration, each in a new process.",
)
@click.option("--trial", help="Time of each run for warm-up and timed steps: 1.5s, 5s. Default: as in a search.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the sample and of the order."
)
@set_option
@json_option
@click.option("--quiet", is_flag=True, help="Print the table's path only.")
@device_option
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
    """Measure every configuration of SPEC's space.

    Writes one table, for `autotune replay` and for pandas, and prints its path on stdout. Run the same command on an
    unfinished table to continue it.
    """
    from autotune.bench.sweep import SweepPlan, SweepProgress
    from autotune.bench.sweep import sweep as run_sweep
    from autotune.report.terminal import sweep_line
    from autotune.search.budget import BudgetNow
    from autotune.spec import load_spec

    loaded = load_spec(spec_path, overrides, device=device)
    trial_s = seconds("--trial", trial) if trial else BudgetNow(total_s=loaded.spec.budget).trial_s
    console = stderr()

    def say(progress: SweepProgress) -> None:
        if not (quiet or as_json):
            console.print(sweep_line(progress.run, progress.done, progress.planned, progress.remaining_s))

    try:
        path = run_sweep(
            loaded,
            SweepPlan(trial_s=trial_s, repeats=repeats, sample=sample, seed=seed),
            out=out,
            studies=STUDIES,
            command=command_line(),
            on_run=say,
        )
    except KeyboardInterrupt:
        console.print("interrupted; the measurements so far are kept. Run the same command to continue")
        raise click.exceptions.Exit(INTERRUPTED) from None
    if as_json:
        print_json({"table": str(path)})
    else:
        print_path(path)


@click.command()
@click.argument("tables", metavar="TABLE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--strategy",
    default="auto,gp,tpe,random",
    show_default=True,
    help="Strategies to compare; NAME-seeds is NAME without first guesses.",
)
@click.option(
    "--seeds", type=click.IntRange(min=1), default=20, show_default=True, help="Number of searches per strategy."
)
@click.option("--budget", default="5m", show_default=True, help="Budget of each search, in recorded trial time.")
@click.option("--jobs", type=click.IntRange(min=1), default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option(
    "--workers", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Trials in flight at a time."
)
@click.option("--failures", type=click.FloatRange(0, 0.9), default=0.0, help="Probability that a trial's worker dies.")
@click.option(
    "--stragglers", type=click.FloatRange(0, 1), default=0.0, help="Probability that a trial takes 3 times as long."
)
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Plot the best found over time into FILE.png, .svg or .html."
)
@json_option
@click.option("--quiet", is_flag=True, help="Show the table only.")
def replay(
    tables: tuple[Path, ...],
    strategy: str,
    seeds: int,
    budget: str,
    jobs: int,
    workers: int,
    failures: float,
    stragglers: float,
    plot: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run search strategies against a recorded TABLE.

    `autotune sweep` records one. Nothing trains: times and noise are the recorded ones. --workers simulates a cluster
    of that size, with --failures and --stragglers; the output then shows what share of a core the strategy takes.
    """
    from autotune.bench.plot import FORMATS, write_plot
    from autotune.bench.replay import Plan, check
    from autotune.bench.replay import replay as run_replay
    from autotune.bench.session import Crew
    from autotune.report.terminal import replay_view

    budget_s = seconds("--budget", budget)
    if plot is not None and plot.suffix not in FORMATS:
        raise SpecError(f"--plot: give a file that ends in {', '.join(FORMATS)}")
    names = list(dict.fromkeys(name.strip() for name in strategy.split(",") if name.strip()))
    crew = Crew(workers=workers, failures=failures, stragglers=stragglers)
    plan = Plan(strategies=names, seeds=seeds, budget_s=budget_s, jobs=jobs, crew=crew)
    check(tables, plan)
    outcomes = []
    with stderr().status("") as status:
        for path in tables:

            def say(done: int, planned: int, name: str = path.name) -> None:
                if not (quiet or as_json):
                    status.update(f"{name}: {done} of {planned} searches")

            outcomes.append(run_replay(path, plan, say))
    documents = [outcome.document() for outcome in outcomes]
    if plot is not None:
        write_plot(plot, outcomes)
    if as_json:
        print_json(documents[0] if len(documents) == 1 else {"tables": documents})
    else:
        stdout().print(replay_view(documents))
