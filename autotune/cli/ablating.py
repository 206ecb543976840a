"""`autotune ablate`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autotune.cli.shared import (
    BEGAN_S,
    INTERRUPTED,
    STUDIES,
    command_line,
    device_option,
    json_option,
    print_json,
    print_path,
    seconds,
    set_option,
    stderr,
)
from autotune.errors import SpecError

if TYPE_CHECKING:
    from autotune.records import Ablation
    from autotune.spec import LoadedSpec
    from autotune.store import AblationFolder


@click.command()
@click.argument("paths", metavar="SPEC...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--budget", help="Budget for all specs together, divided equally. Default: each spec uses its own.")
@click.option("--out", type=click.Path(path_type=Path), default=STUDIES / "ablation", show_default=True, help="Folder.")
@set_option
@click.option("--fresh", is_flag=True, help="Start over. Earlier ablations are kept under new names.")
@json_option
@click.option("--quiet", is_flag=True, help="Show the result only.")
@device_option
def ablate(
    paths: tuple[Path, ...],
    budget: str | None,
    out: Path,
    overrides: tuple[str, ...],
    fresh: bool,
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    """Measure what each technique gives, alone and together.

    The techniques are gradient accumulation, AMP and pinned memory, or those that SPEC names under `ablation`. Every
    combination trains in new processes, in alternation, at the same effective batch size. Run the same command on an
    unfinished ablation to continue it. Prints the paths of the tables on stdout; ablation.json, .svg and .png are in
    the same folder.
    """
    from autotune.ablation import Interrupted, write
    from autotune.ablation import ablate as run_ablation
    from autotune.ablation.screen import Screen
    from autotune.store import AblationFolder

    specs = _load(paths, overrides, budget, device)
    done: list[Ablation] = []
    began_s, stopped = BEGAN_S, False
    with Screen(stderr(), quiet=quiet or as_json) as screen:
        for loaded in specs:
            screen.begins(loaded.spec.name)
            folder = AblationFolder(out / loaded.spec.name)
            try:
                done.append(
                    run_ablation(
                        loaded,
                        folder,
                        command=command_line(),
                        fresh=fresh,
                        began_s=began_s,
                        on_design=screen.on_design,
                        on_run=screen.on_run,
                    )
                )
            except Interrupted as interruption:
                stopped = True
                done += [interruption.result] if interruption.result else []
            began_s = time.monotonic()
            if done and done[-1].name == loaded.spec.name:
                write(done[-1], folder)
            if stopped:
                break
    _show(done, AblationFolder(out), as_json=as_json)
    if stopped:
        stderr().print("interrupted; the measurements so far are kept. Run the same command to continue")
        raise click.exceptions.Exit(INTERRUPTED)


def _load(
    paths: Sequence[Path], overrides: tuple[str, ...], budget: str | None, device: str | None
) -> list[LoadedSpec]:
    """Load all specs before anything runs; a common `budget` is divided."""
    from autotune.spec import load_spec

    share = None if budget is None else f"{seconds('--budget', budget) / len(paths):.2f}s"
    specs = [load_spec(path, overrides, budget=share, device=device) for path in paths]
    name, count = Counter(loaded.spec.name for loaded in specs).most_common(1)[0]
    if count > 1:
        raise SpecError(f"{count} of the specs are named {name}, and would share a folder; give them different names")
    return specs


def _show(done: Sequence[Ablation], out: AblationFolder, *, as_json: bool) -> None:
    from autotune.ablation import overview, write_overview
    from autotune.ablation.screen import overview_view, view
    from autotune.store import AblationFolder

    if len(done) > 1:
        write_overview(done, out)
    if as_json:
        print_json(done[0].model_dump(mode="json") if len(done) == 1 else overview(done))
        return
    console = stderr()
    for ablation in done:
        console.print(view(ablation))
    if len(done) > 1:
        console.print(overview_view(done))
    for ablation in done:
        print_path(AblationFolder(out.path / ablation.name).tables)
    if len(done) > 1:
        print_path(out.tables)
