"""HTML from Python calls: everything that is not `Markup` is cleaned and escaped, so that nothing from a study can
become a tag, an attribute or a script."""

from __future__ import annotations

import html
from collections.abc import Iterable

from autotune.report.cleaning import clean

_MOST_CHARACTERS = 60_000
"""Limit for one text: enough for a whole exported script, but not for an error of megabytes."""
_ALONE = {"meta", "link", "hr", "br", "input", "col"}


class Markup(str):
    """HTML that is already safe."""

    __slots__ = ()


def text(value: object) -> Markup:
    """`value` as text, cleaned and escaped."""
    return value if isinstance(value, Markup) else Markup(html.escape(clean(value, _MOST_CHARACTERS)))


def joined(parts: Iterable[object]) -> Markup:
    return Markup("".join(text(part) for part in parts if part is not None))


def tag(name: str, /, *children: object, **attributes: str | bool | None) -> Markup:
    """`tag("p", "a < b", class_="note")` → `<p class="note">a &lt; b</p>`.

    An underscore in an attribute's name becomes a hyphen, one at its end is dropped. True gives an attribute without a
    value; None and False give none. Children that are None are left out.
    """
    shown = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    opening = f"<{name}{shown}>"
    return Markup(opening) if name in _ALONE else Markup(f"{opening}{joined(children)}</{name}>")


def script(kind: str | None, content: str, **attributes: str) -> Markup:
    """An inline script of autotune, or JSON for one. Its content cannot close the element."""
    shown = "".join(_attribute(key, value) for key, value in attributes.items())
    kind_of = f' type="{kind}"' if kind else ""
    return Markup(f"<script{kind_of}{shown}>{content}</script>")


def json_in_html(document: str) -> str:
    """JSON for use inside a script element: the same values, without characters that HTML would interpret."""
    for character in "<>&\u2028\u2029":
        document = document.replace(character, f"\\u{ord(character):04x}")
    return document


def _attribute(key: str, value: str | bool) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{text(value)}"' if value is not False else ""
