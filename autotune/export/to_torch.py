"""`torch`: a training script for this model and this data with these settings. It needs no autotune.

It contains no branch that the settings do not use, and reads as if written by hand. It does the same as a trial, in the
same order, so it is as fast.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from autotune.config import RANK_KNOBS
from autotune.export.document import ALL_KNOBS, every_custom
from autotune.export.quoting import docstring, literal
from autotune.export.script.data import data_piece
from autotune.export.script.model import model_piece
from autotune.export.script.piece import Own
from autotune.export.script.run import constants, loader_piece, main_piece, options_piece, timed_piece
from autotune.export.script.step import step_piece
from autotune.export.target import Source, Target
from autotune.export.text import introduction

_USAGE = "Prints at its end, as JSON, the throughput of the steps after the warm-up."


def _render(source: Source) -> dict[str, str]:
    spec = source.require_spec("torch")
    data = data_piece(spec, source)
    pieces = [
        main_piece(spec, source, data),
        options_piece(spec, data),
        data,
        loader_piece(spec, source, data),
        model_piece(spec, source),
        step_piece(spec, source, data),
        timed_piece(source),
    ]
    imports = {statement for piece in pieces for statement in piece.imports}
    title = f"Trains {spec.model.timm or spec.model.factory} with the settings that autotune found for it."
    top = "#!/usr/bin/env python3\n" + docstring(title, introduction(source, TARGET, _USAGE))
    own = [piece.own for piece in pieces if piece.own is not None]
    parts = [_imports(imports, own, source), constants(source)]
    code = "\n\n\n".join([*(piece.code for piece in pieces), _MAIN])
    return {"train.py": "\n".join([top, *(f"{part}\n" for part in parts), f"\n{code}\n"])}


_MAIN = 'if __name__ == "__main__":\n    main()'


def _imports(statements: Iterable[str], own: list[Own], source: Source) -> str:
    """Imports in three groups; the last group has the user's own modules, which are found where the study found
    them."""
    groups: list[list[str]] = [[], []]
    for statement in sorted(_merged(statements), key=_order):
        groups[_package(statement) not in sys.stdlib_module_names].append(statement)
    text = "\n\n".join("\n".join(group) for group in groups)
    if not own:
        return text
    found = [f"sys.path.insert(0, {literal(str(source.folder))})"] if source.folder else []
    statements = sorted({f"{each.statement}  # noqa: E402" if found else each.statement for each in own})
    text = f"import sys\n{text}" if found else text
    return "\n\n".join([_with_sys_in_place(text), *found, "\n".join(statements)])


def _merged(statements: Iterable[str]) -> list[str]:
    """The same imports with one statement for all names from one module."""
    whole = {statement for statement in statements if statement.startswith("import")}
    names: dict[str, set[str]] = {}
    for statement in set(statements) - whole:
        head, _, given = statement.partition(" import ")
        names.setdefault(head, set()).update(given.split(", "))
    return [*whole, *(f"{head} import {', '.join(sorted(given))}" for head, given in names.items())]


def _with_sys_in_place(text: str) -> str:
    first, _, rest = text.partition("\n\n")
    return "\n\n".join(["\n".join(sorted(first.splitlines(), key=_order)), rest])


def _package(statement: str) -> str:
    return statement.split()[1].partition(".")[0]


def _order(statement: str) -> tuple[bool, str]:
    """Sort key as in isort: whole modules first, then names from modules."""
    return statement.startswith("from"), statement.split()[1].lower()


def _remarks(source: Source) -> list[str]:
    spec = source.spec
    if spec is None:
        return []
    found = []
    if spec.data.image_folder is not None:
        found.append("An image that cannot be decoded stops this script; the trials skipped it.")
    return found


TARGET = Target(
    name="torch",
    gives="a script without autotune",
    render=_render,
    expresses=ALL_KNOBS.difference(RANK_KNOBS),
    customs=every_custom,
    collates=True,
    remarks=_remarks,
)
