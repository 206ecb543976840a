"""The common style of all figures: one palette, light axes, axes that include zero, nothing that needs a wide screen.

The colours are those of Okabe and Ito, which colour-blind readers can distinguish, with a medium lightness so that each
is visible on white and on near-black. The page sets the text colour to match its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot

BLUE, ORANGE, GREEN, PURPLE, GREY = "#2f7fc1", "#d5691e", "#12977c", "#b565a7", "#8a929c"
GOLD, SKY = "#b98a00", "#3aa0d8"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, GOLD, SKY)
"""Colours for categories without a fixed colour."""
BEST, BASELINE, FAILED = BLUE, GREY, ORANGE
_TEXT = "#4a525b"
_LINE = "rgba(128, 136, 146, 0.55)"
_GRID = "rgba(128, 136, 146, 0.22)"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_MIB, _GIB = 1 << 20, 1 << 30


def plot(traces: Sequence[Any], *, height: int, x: str = "", y: str = "", **layout: Any) -> Plot:
    """A figure of `traces`; `x` and `y`: titles of the axes, with their units."""
    from plotly import graph_objects as go

    figure = go.Figure(data=list(traces), layout=go.Layout(template=go.layout.Template(), height=height))
    dress(figure)
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y)
    figure.update_layout(layout)
    return figure


def dress(figure: Plot) -> None:
    """Font, background, legend and axes of any figure."""
    figure.update_layout(
        font={"family": _FONT, "size": 13, "color": _TEXT},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 8, "r": 14, "t": 12, "b": 8},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "itemwidth": 30},
        hoverlabel={"font": {"family": _FONT, "size": 12}, "align": "left"},
        hovermode="closest",
        dragmode=False,
    )
    quiet = {
        "automargin": True,
        "gridcolor": _GRID,
        "zerolinecolor": _LINE,
        "zeroline": True,
        "linecolor": _LINE,
        "ticks": "",
        "title": {"standoff": 8, "font": {"size": 13}},
    }
    figure.update_xaxes(**quiet)
    figure.update_yaxes(**quiet)


def from_zero(values: Sequence[float], room: float = 1.08) -> list[float]:
    """The range of an axis that begins at zero and holds `values`."""
    return [0.0, room * max(values, default=1.0) or 1.0]


def rows(figure: Plot, labels: Sequence[str]) -> None:
    """Rows of bars at 0, 1, …, the first on top, each with its label and without grid lines."""
    figure.update_yaxes(
        tickvals=list(range(len(labels))),
        ticktext=list(labels),
        range=[len(labels) - 0.4, -0.6],
        showgrid=False,
        zeroline=False,
    )


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def memory_unit(counts: Sequence[float]) -> tuple[float, str]:
    """The memory unit that suits `counts`: its size in bytes and its name."""
    return (_GIB, "GiB") if max(counts, default=0) >= 2 * _GIB else (_MIB, "MiB")


def translucent(colour: str, alpha: float) -> str:
    """`#rrggbb` with the opacity `alpha`."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {alpha})"
