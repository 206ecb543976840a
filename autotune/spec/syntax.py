"""Explains broken YAML: the most likely cause, and how to fix it."""

from __future__ import annotations

import re

from yaml.error import MarkedYAMLError

_MEANINGS: tuple[tuple[str, str], ...] = (
    (r"found character '\\t'", "a tab is not allowed here; indent with spaces"),
    (r"found a tab character|violate indentation", "a tab is not allowed here; indent with spaces"),
    (r"expected ',' or '\]'", "the list opened with [{opened} is not closed, or lacks a comma"),
    (r"expected ',' or '\}'", "the mapping opened with {{{opened} is not closed, or lacks a comma"),
    (
        r"mapping values are not allowed here",
        "one ':' too many in this line, or wrong indentation; quote text that contains ': '",
    ),
    (
        r"expected <block end>, but found '-'",
        "a list item where a key was expected: the indent does not match the lines above",
    ),
    (r"expected <block end>", "this does not continue the lines above: check the indent"),
    (r"could not find expected ':'", "a key without its ': '"),
    (r"found unexpected end of stream", "the quoted text{opened} is not closed"),
    (r"found undefined alias", "the alias has no anchor above it; quote text that starts with *"),
    (r"found duplicate anchor", "two anchors of one name"),
    (r"expected a single document|but found another document", "a second document starts here; a spec is one document"),
    (r"found character '[@`%]'", "text cannot start with this character; quote it"),
    (r"expected the node content", "a value is missing"),
    (r"did not find expected <document start>", "this is after the end of the document"),
)


def explain_syntax(error: MarkedYAMLError) -> str:
    """One line; PyYAML's own message if the case is not known."""
    said = f"{error.problem or ''} {error.context or ''}"
    opened = ""
    if error.context_mark and error.context_mark is not error.problem_mark:
        opened = f" at line {error.context_mark.line + 1}, column {error.context_mark.column + 1}"
    for pattern, meaning in _MEANINGS:
        if re.search(pattern, said):
            return meaning.format(opened=opened)
    return f"not YAML: {' '.join(said.split())}"
