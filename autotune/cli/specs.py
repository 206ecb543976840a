"""Commands on a spec, or on this machine, that train nothing: `init`, `validate`, `schema`, `doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from autotune.cli.shared import (
    device_option,
    json_option,
    print_json,
    print_path,
    set_option,
    spec_argument,
    stdout,
)
from autotune.errors import SpecError

_VALIDATE_LIMIT_S = 300.0


@click.command()
@click.argument("path", metavar="[FILE]", type=click.Path(path_type=Path), default=Path("autotune.yaml"))
def init(path: Path) -> None:
    """Write a commented spec to FILE.

    The default is autotune.yaml. The spec is valid as written.
    """
    from autotune.spec import scaffold_text, study_name

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(scaffold_text(study_name(path.stem)))
    except FileExistsError:
        raise SpecError(f"{path} exists already; give another file name") from None
    except OSError as error:
        raise SpecError(f"cannot write {path}: {error.strerror}") from error
    print_path(path)


@click.command()
@spec_argument
@set_option
@json_option
@device_option
@click.option("--run/--no-run", "runs", default=True, help="Run one step of the baseline (default), or train nothing.")
def validate(spec_path: Path, overrides: tuple[str, ...], as_json: bool, device: str | None, runs: bool) -> None:
    """Check SPEC and show what would be searched.

    Runs one step of the baseline on this machine.
    """
    from autotune.report import words
    from autotune.report.terminal import facts_view, space_view
    from autotune.search import look_around
    from autotune.search.smaller_baseline import said
    from autotune.spec import knob_values, load_spec

    loaded = load_spec(spec_path, overrides, device=device)
    facts, space = look_around(loaded, _VALIDATE_LIMIT_S, runs=runs)
    constraints = loaded.spec.parsed_constraints()
    smaller = said(space.baseline, space.too_large)
    if as_json:
        of_measures = [constraint.text for constraint in constraints if not constraint.on_knobs]
        extent = {"configurations": None if space.size == float("inf") else space.size}
        held_back = {knob: list(values) for knob, values in space.held_back.items()}
        document = {"facts": facts.model_dump(mode="json"), **space.to_dict(), **extent, "held_back": held_back}
        document |= {"notes": [smaller] if smaller else []}
        print_json(document | {"measured_constraints": of_measures, "dropped": [str(d) for d in space.dropped]})
        return
    baseline = knob_values(space.baseline)
    searched = {dimension.knob: dimension.searched for dimension in space.dimensions}
    rows = [
        (knob, words.values(values, space.held_back.get(knob, ())), words.setting(baseline[knob]))
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
    console = stdout()
    console.print(facts_view(facts))
    if runs:
        console.print("baseline    one optimizer step ran")
    if smaller is not None:
        console.print(smaller)
    console.print(space_view(rows, size, [str(dropped) for dropped in space.dropped], lines))


@click.command()
def schema() -> None:
    """Print the JSON Schema of specs, for editors."""
    from autotune.spec import json_schema

    print_json(json_schema())


@click.command()
@json_option
@device_option
def doctor(as_json: bool, device: str | None) -> None:
    """Show what this machine offers to a search."""
    from autotune.execution import look_at_machine
    from autotune.report.terminal import machine_view

    device_facts, host_facts = look_at_machine(device or "auto")
    if as_json:
        print_json({"device": device_facts.model_dump(mode="json"), "host": host_facts.model_dump(mode="json")})
    else:
        stdout().print(machine_view(device_facts, host_facts))
