"""The fenced blocks of the README and of the documentation's pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# (\S+\.\w+)")


class Snippet(NamedTuple):
    page: Path
    line: int
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name that its first line gives it, if it is a file."""
        named = _FILE.fullmatch(self.text.partition("\n")[0])
        return named[1] if named else None

    def __str__(self) -> str:
        return f"{self.page.stem}:{self.line}"


def snippets(*languages: str) -> Iterator[Snippet]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in _FENCED.finditer(text):
            if found[1] in languages:
                yield Snippet(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])
