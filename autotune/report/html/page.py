"""The page around the sections: one self-contained file that may not use the network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files

from autotune.report.html.parts import Markup, joined, tag
from autotune.report.html.tags import script

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
"""Nothing may be loaded: even the report of a stranger's study cannot reveal that it was opened."""


def page(title: str, about: str, sections: Sequence[Markup], contents: Iterable[tuple[str, str]]) -> str:
    """`contents`: id and title of each section."""
    from plotly.offline import get_plotlyjs

    links = [tag("a", name, href=f"#{identity}") for identity, name in contents]
    return "<!doctype html>\n" + tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", f"{title} · autotune"),
            tag("style", Markup(_packaged("page.css"))),
        ),
        tag(
            "body",
            tag("header", tag("h1", title), tag("p", about, class_="about"), tag("nav", joined(links))),
            tag("noscript", tag("p", "The figures need JavaScript; captions and tables do not.")),
            tag("main", *sections),
            tag("footer", tag("p", "Written by autotune. This file needs no network.")),
            script(None, get_plotlyjs()),
            script(None, _packaged("page.js")),
        ),
        lang="en",
    )


def _packaged(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
