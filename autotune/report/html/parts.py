"""What sections are made of: figures, tables, lists, text to copy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from autotune.report.html.legend import legend
from autotune.report.html.tags import Markup, joined, json_in_html, script, tag, text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot


def section(identity: str, title: str, *children: object) -> Markup:
    return tag("section", tag("h2", title), *children, id=identity)


def figure(identity: str, title: str, plot: Plot | None, caption: str, *, wide: bool = False) -> Markup:
    """A plot, or a sentence that says why there is none."""
    if plot is None:
        return tag("p", tag("b", f"{title}. "), caption, class_="absent", id=f"figure-{identity}")
    height = plot.layout.height or 400
    canvas = tag("div", class_="plot", data_plot=identity, style=f"height:{height:.0f}px", role="img", aria_label=title)
    data = script("application/json", json_in_html(plot.to_json()), id=f"plot-{identity}")
    words = tag("figcaption", tag("b", f"{title}. "), caption)
    return tag("figure", legend(plot), canvas, data, words, id=f"figure-{identity}", class_="wide" if wide else None)


def table(
    headings: Sequence[object], rows: Iterable[Sequence[object]], *, numeric: Sequence[int] = (), class_: str = ""
) -> Markup:
    """`numeric`: indices of columns with numbers."""

    def cells(name: str, values: Sequence[object]) -> Markup:
        return joined(
            tag(name, value, class_="number" if place in numeric else None) for place, value in enumerate(values)
        )

    head = tag("thead", tag("tr", cells("th", headings))) if any(headings) else None
    body = tag("tbody", joined(tag("tr", cells("td", row)) for row in rows))
    return tag("div", tag("table", head, body), class_=f"table {class_}".strip(), tabindex="0", role="group")


def listing(lines: Iterable[object]) -> Markup | None:
    items = [tag("li", line) for line in lines]
    return tag("ul", *items) if items else None


def details(summary: object, *children: object, name: str | None = None, open_: bool = False) -> Markup:
    return tag("details", tag("summary", summary), *children, name=name, open=open_)


def to_copy(content: str) -> Markup:
    """Text with a button that copies it, if scripts are enabled."""
    return tag("div", tag("pre", tag("code", content), tabindex="0"), class_="copy")


def code(value: object) -> Markup:
    return tag("code", value)


__all__ = ["Markup", "code", "details", "figure", "joined", "listing", "section", "table", "tag", "text", "to_copy"]
