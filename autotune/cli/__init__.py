"""The command line: the only package that prints or exits. What a command needs is imported when it runs, so that
`autotune --help` is instant."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

import click

from autotune import __version__
from autotune.cli.ablating import ablate
from autotune.cli.reports import report
from autotune.cli.searching import search
from autotune.cli.serving import dashboard
from autotune.cli.shared import INTERRUPTED
from autotune.cli.specs import doctor, init, schema, validate
from autotune.cli.streams import lost_output, outlive_readers
from autotune.cli.studies import export, show, verify
from autotune.cli.tables import replay, sweep
from autotune.errors import AutotuneError, EnvironmentFailure, SpecError
from autotune.report.cleaning import clean

_KEPT_IN_FILES = [["search"], ["sweep"], ["ablate"]]
"""Commands whose result is in a file; they print its path."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="autotune")
def cli() -> None:
    """Find the fastest stable way to train your model on your data on this machine, inside a time budget."""


for command in (search, validate, init, schema, doctor, show, report, dashboard, verify, export, ablate, sweep, replay):
    cli.add_command(command)

_MOST_OF_AN_ERROR = 10_000
"""Characters."""
_PAGES = {
    "schema": "spec",
    "doctor": "troubleshooting",
    "show": "report",
    "report": "report",
    "dashboard": "report",
    "verify": "training",
    "export": "training",
    "ablate": "ablation",
    "sweep": "results",
    "replay": "results",
}
"""The documentation page of a command."""
cli.epilog = "Documentation: docs/start.md; all options: docs/commands.md"
for command in cli.commands.values():
    command.epilog = f"Documentation: docs/{_PAGES.get(command.name or '', 'start')}.md"


def main() -> NoReturn:
    """Run the command and exit with the code that docs/commands.md defines for its outcome."""
    outlive_readers()
    for name in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(name) is not signal.SIG_IGN:  # nohup wants this signal ignored
            signal.signal(name, _interrupt)
    code = _run_command()
    lost = lost_output()
    if code == 0 and lost and sys.argv[1:2] not in _KEPT_IN_FILES:
        error = EnvironmentFailure(f"cannot write to stdout: {lost}")
        _say(error)
        code = error.exit_code
    sys.stderr.flush()
    # Unloading the sampler's imports in order would cost seconds of the budget, without any use.
    os._exit(code)


def _run_command() -> int:
    try:
        left_with = cli.main(standalone_mode=False)
    except (click.ClickException, AutotuneError) as error:
        _say(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return left_with if isinstance(left_with, int) else 0


def _say(error: click.ClickException | AutotuneError) -> None:
    if isinstance(error, click.ClickException):
        error.show()
        return
    for line in error.problems if isinstance(error, SpecError) else (str(error),):
        click.echo(clean(f"error: {line}", _MOST_OF_AN_ERROR), err=True)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
