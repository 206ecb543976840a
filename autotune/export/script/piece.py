"""Types that all parts of a script share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import indent

from autotune.export.quoting import identifier


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Definitions, and their imports."""

    code: str = ""
    """Functions and classes at the top level, two blank lines between them."""
    imports: frozenset[str] = frozenset()
    """Complete statements that import installed packages and the standard library."""
    own: Own | None = None
    """The user's callable that the code calls."""


@dataclass(frozen=True)
class Own:
    """A callable of the user that a spec names as `package.module:path.to.it`."""

    named: str
    role: str
    """Its name in the script, because several callables may be called `build`."""

    @property
    def statement(self) -> str:
        """The statement that imports it."""
        module, _, path = self.named.partition(":")
        return f"from {identifier(module)} import {identifier(path.partition('.')[0])} as {self.role}"

    @property
    def expression(self) -> str:
        """The expression by which the script calls it."""
        _, _, inside = self.named.partition(":")[2].partition(".")
        return f"{self.role}.{identifier(inside)}" if inside else self.role


def function(head: str, docstring: str | None, body: Iterable[str | None]) -> str:
    """`def head:` with a docstring, if there is one, and the lines of `body` that are not None."""
    lines = [f'"""{docstring}"""'] if docstring else []
    lines += [line for line in body if line is not None]
    return f"def {head}:\n" + indent("\n".join(lines), "    ")


def block(head: str, body: Iterable[str]) -> str:
    """A compound statement: `head:` and the lines of `body` under it."""
    return f"{head}:\n" + indent("\n".join(body), "    ")
