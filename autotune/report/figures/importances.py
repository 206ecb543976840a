"""Which knobs distinguish the fast trials from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotune.report.cleaning import for_plotly
from autotune.report.figures import style
from autotune.report.figures.figure import Figure
from autotune.report.importance import FAST_SHARE, FEWEST_TRIALS, importances
from autotune.report.reading import Reading

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot


def _build(reading: Reading) -> Plot | None:
    from plotly import graph_objects as go

    found = importances(reading)
    if not found:
        return None
    bar = go.Bar(
        y=list(range(len(found))),
        x=[100 * share for share in found.values()],
        orientation="h",
        width=0.6,
        marker={"color": style.BLUE},
        text=[style.percent(share) for share in found.values()],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{x:.1f} %<extra></extra>",
    )
    figure = style.plot([bar], height=80 + 32 * len(found), x="share of the importance", showlegend=False)
    figure.update_xaxes(range=style.from_zero([100 * share for share in found.values()], 1.15), ticksuffix=" %")
    style.rows(figure, [for_plotly(knob, 40) for knob in found])
    return figure


def _caption(reading: Reading) -> str:
    count = len(reading.measured)
    if not importances(reading):
        return f"{count} measured trials are too few to judge; it takes {FEWEST_TRIALS}, and knobs that vary."
    return (
        f"PED-ANOVA over {count} trials of the search: how far the values of a knob among the fastest "
        f"{style.percent(FAST_SHARE)} differ from those among all. It sees what the search chose to try, so it says "
        "which knobs may matter, not by how much; with few trials, a knob that does nothing may rank high by chance."
    )


FIGURE = Figure(name="importances", title="Which knobs matter", build=_build, caption=_caption)
