"""The legend of a figure in HTML: on a narrow screen it wraps like text, whereas plotly's legend covers the plot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from autotune.report.html.tags import Markup, joined, tag

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot

_FEWEST = 2
_SHAPES = {
    "circle": tag("circle", cx="12", cy="7", r="4"),
    "square": tag("rect", x="8", y="3", width="8", height="8"),
    "diamond": tag("path", d="M12 2l5 5-5 5-5-5z"),
    "x": tag("path", d="M8 3l8 8m0-8l-8 8", stroke_width="2"),
}


def legend(plot: Plot) -> Markup | None:
    """None if the figure shows only one thing."""
    if plot.layout.showlegend is False:
        return None
    entries = [
        tag("span", _swatch(trace), f" {_plain(trace.name)}")
        for trace in plot.data
        if trace.name and trace.showlegend is not False
    ]
    return tag("p", *entries, class_="legend") if len(entries) >= _FEWEST else None


def _plain(name: str) -> Markup:
    """The name as text: it was escaped for plotly, which reads names as HTML."""
    return Markup(name)


def _swatch(trace: Any) -> Markup:
    drawing = joined(_bar(trace) if trace.type == "bar" else _scatter(trace))
    return tag("svg", drawing, width="24", height="14", viewBox="0 0 24 14", aria_hidden="true")


def _bar(trace: Any) -> Iterator[Markup]:
    yield tag("rect", x="6", y="1", width="12", height="12", rx="2", fill=trace.marker.color)


def _scatter(trace: Any) -> Iterator[Markup]:
    mode = trace.mode or ""
    if trace.fill:
        yield tag("rect", x="2", y="1", width="20", height="12", fill=trace.fillcolor)
    elif "lines" in mode:
        dashes = {"dash": "5 3", "dot": "1.5 2.5"}.get(trace.line.dash or "")
        yield tag("path", d="M1 7h22", stroke=trace.line.color, stroke_width="2", stroke_dasharray=dashes)
    if "markers" in mode:
        symbol = str(trace.marker.symbol or "circle")
        shape = _SHAPES.get(symbol.split("-")[0], _SHAPES["circle"])
        hollow = "open" in symbol or symbol.startswith("x")
        yield tag(
            "g",
            shape,
            fill="none" if hollow else trace.marker.color,
            stroke=trace.marker.color if hollow else None,
            stroke_width="1.5",
        )
