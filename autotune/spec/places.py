"""Where each value of a spec was written, in the file or on the command line: the first part of a message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from autotune.spec.document import DocPath, Document, Flaw, Position


class Places:
    """The positions of a document after overrides, which are given as (option, path) in the order of their
    application."""

    def __init__(self, document: Document, file: str, overrides: Sequence[tuple[str, DocPath]]) -> None:
        self._document = document
        self._file = file
        self._overrides = overrides

    def lines(self, flaws: Iterable[Flaw]) -> list[str]:
        """One line per position, for its first flaw: flaws in the file by position, then the others."""
        said: dict[tuple[tuple[int, Position], str], str] = {}
        for flaw in flaws:
            said.setdefault((self._place(flaw), dotted(flaw.path)), flaw.message)
        return [
            one_line(f"{self._label(place)}: {f'{path}: ' * bool(path)}{message}")
            for (place, path), message in sorted(said.items())
        ]

    def _place(self, flaw: Flaw) -> tuple[int, Position]:
        """(0, position in the file), or (n, _) for the n-th override."""
        nowhere = Position(1, 1)
        if flaw.position:
            return 0, flaw.position
        for path in (flaw.path[:depth] for depth in range(len(flaw.path), -1, -1)):
            if number := self._set_by(path):
                return number, nowhere
            if position := self._in_file(path, flaw.at_key or path != flaw.path):
                return 0, position
        return 0, nowhere

    def _set_by(self, path: DocPath) -> int:
        """Number of the last override that set `path` or a section around it, or that created it."""
        for number, (_, target) in reversed(list(enumerate(self._overrides, start=1))):
            made = path not in self._document.positions and target[: len(path)] == path
            if made or path[: len(target)] == target:
                return number
        return 0

    def _in_file(self, path: DocPath, at_key: bool) -> Position | None:
        """Position of the value; of the key if that is wrong, or if the value has keys of its own."""
        spread = any(key[: len(path)] == path for key in self._document.keys if len(key) > len(path))
        if at_key or spread:
            return self._document.keys.get(path, self._document.positions.get(path))
        return self._document.positions.get(path)

    def _label(self, place: tuple[int, Position]) -> str:
        number, position = place
        if number:
            return self._overrides[number - 1][0]
        return f"{self._file}:{position.line}:{position.column}" if self._document.positions else self._file


def dotted(path: DocPath) -> str:
    """`path` in the form of `--set`: `search.amp_dtype.0`."""
    return ".".join(map(str, path))


def one_line(text: str) -> str:
    """`text` without line breaks and escape codes, which a file name or a value may contain."""
    return "".join(character if character.isprintable() else " " for character in text)
