"""What the strategy predicted for each trial, and what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotune.report import words
from autotune.report.cleaning import for_plotly
from autotune.report.figures import style
from autotune.report.figures.figure import Figure
from autotune.report.reading import Reading
from autotune.search.figures import is_ok, samples_per_s

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot


def _build(reading: Reading) -> Plot | None:
    from plotly import graph_objects as go

    pairs = [(record, record.predicted) for record in reading.searched if record.predicted and is_ok(record)]
    if len(pairs) < 2:
        return None
    values = [samples_per_s(record) for record, _ in pairs]
    expected = [predicted.samples_per_s for _, predicted in pairs]
    end = style.from_zero([*values, *expected])[1]
    points = go.Scatter(
        x=values,
        y=expected,
        mode="markers",
        name="trial, with the prediction's 95 % interval",
        marker={"color": style.BLUE, "size": 7},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [predicted.high - predicted.samples_per_s for _, predicted in pairs],
            "arrayminus": [predicted.samples_per_s - predicted.low for _, predicted in pairs],
            "color": style.translucent(style.BLUE, 0.35),
            "thickness": 1,
            "width": 0,
        },
        customdata=[for_plotly(words.changes(record.result.config, reading.baseline)) for record, _ in pairs],
        hovertemplate="measured %{x:,.4~r}, predicted %{y:,.4~r}<br>%{customdata}<extra></extra>",
    )
    diagonal = go.Scatter(
        x=[0, end],
        y=[0, end],
        mode="lines",
        name="as predicted",
        line={"color": style.GREY, "width": 1, "dash": "dash"},
        hoverinfo="skip",
    )
    figure = style.plot(
        [diagonal, points], height=400, x="measured, samples per second", y="predicted, samples per second"
    )
    figure.update_xaxes(range=[0, end])
    figure.update_yaxes(range=[0, end])
    return figure


def _caption(reading: Reading) -> str:
    section = reading.document["search"].get("strategy", {})
    if not section.get("predictions"):
        return "This strategy makes no predictions."
    how_good = words.predictions(section)
    return f"Each prediction was made before its trial.{f' {how_good}.' if how_good else ''}"


FIGURE = Figure(name="predictions", title="Predicted and measured", build=_build, caption=_caption)
