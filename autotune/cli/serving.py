"""`autotune dashboard`."""

from __future__ import annotations

import click

from autotune.cli.shared import STUDIES, stderr


@click.command()
@click.argument("study", metavar="STUDY")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port to serve on; 0: any free port.",
)
@click.option(
    "--allow-edits", is_flag=True, help="Allow edits of notes and attributes in the browser; they go into study.db."
)
@click.option("--open/--no-open", "open_it", default=False, help="Open it in the web browser.")
def dashboard(study: str, port: int, allow_edits: bool, open_it: bool) -> None:
    """Serve Optuna's dashboard on STUDY.

    STUDY is a folder or a name under studies/, and may still be running. The server listens on this machine only and
    is read-only by default. The best trial shown is the result of the study; a trial that looked faster says why it
    was not chosen. Prints the address on stdout; stop it with Ctrl-C.
    """
    import optuna

    from autotune.errors import EnvironmentFailure, SpecError
    from autotune.report.cleaning import one_line
    from autotune.report.dashboard import Server, furnish
    from autotune.store import find_study

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = find_study(study, STUDIES)
    console = stderr()
    if not folder.is_running():
        try:
            furnish(folder)
        except (SpecError, EnvironmentFailure) as error:  # a copy that is shown does without
            console.print(f"note: figures and pictures are not saved: {one_line(error)}", style="dim", markup=False)
    with Server(folder, port=port, allow_edits=allow_edits) as server:
        click.echo(server.url)
        console.print("stop it with Ctrl-C", style="dim")
        if open_it:
            import webbrowser

            webbrowser.open(server.url)
        try:
            server.run()
        except KeyboardInterrupt:
            console.print("ended")
