"""How fast the best and the baseline are, with intervals and all runs behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autotune.report import words
from autotune.report.cleaning import for_plotly
from autotune.report.figures import style
from autotune.report.figures.figure import Figure
from autotune.report.reading import Reading
from autotune.search.figures import samples_per_s

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot

_BELOW = 0.36
"""Offset of single runs within a row, next to the error bar."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One configuration with its measurements from `best.yaml`."""

    label: str
    figures: dict[str, Any]
    colour: str
    runs: Sequence[float] = ()
    """Samples per second of each confirming run."""


def bars(reading: Reading, prefix: str = "") -> list[Bar]:
    """The baseline, and the best if it differs; `prefix` distinguishes studies."""
    document = reading.document
    drawn = [_bar(reading, f"{prefix}baseline", "baseline", style.BASELINE)]
    if document["config"] != document["baseline"]["config"]:
        drawn.append(_bar(reading, f"{prefix}best", "measured", style.BEST))
    return drawn


def _bar(reading: Reading, label: str, section: str, colour: str) -> Bar:
    config = reading.emitted if section == "measured" else reading.baseline
    runs = [samples_per_s(record) for record in reading.confirming(config)]
    return Bar(label=label, figures=reading.document[section], colour=colour, runs=runs)


def draw(drawn: Sequence[Bar]) -> Plot:
    from plotly import graph_objects as go

    values = [bar.figures["samples_per_s"] for bar in drawn]
    ends = [bar.figures["samples_per_s_ci95"] or [value, value] for bar, value in zip(drawn, values, strict=True)]
    whiskers = {
        "type": "data",
        "symmetric": False,
        "array": [high - value for (_, high), value in zip(ends, values, strict=True)],
        "arrayminus": [value - low for (low, _), value in zip(ends, values, strict=True)],
        "thickness": 1.5,
        "width": 6,
        "color": style.GREY,
    }
    furthest = [max([*bar.runs, high]) for bar, (_, high) in zip(drawn, ends, strict=True)]
    figure = style.plot(
        [
            go.Bar(
                y=list(range(len(drawn))),
                x=values,
                orientation="h",
                width=0.5,
                error_x=whiskers,
                marker={"color": [style.translucent(bar.colour, 0.55) for bar in drawn]},
                hovertemplate="%{x:,.4~r} samples/s<extra></extra>",
                showlegend=False,
            ),
            go.Scatter(
                y=[place + _BELOW for place, bar in enumerate(drawn) for _ in bar.runs],
                x=[run for bar in drawn for run in bar.runs],
                mode="markers",
                marker={
                    "size": 6,
                    "color": [style.translucent(bar.colour, 0.7) for bar in drawn for _ in bar.runs],
                },
                name="one run",
                hovertemplate="one run: %{x:,.4~r} samples/s<extra></extra>",
            ),
            go.Scatter(
                y=list(range(len(drawn))),
                x=furthest,
                mode="text",
                text=[f"  {words.rate(value)}" for value in values],
                textposition="middle right",
                hoverinfo="skip",
                cliponaxis=False,
            ),
        ],
        height=80 + 62 * len(drawn),
        x="samples per second",
        showlegend=False,
    )
    figure.update_xaxes(range=style.from_zero(furthest, 1.16))
    style.rows(figure, [for_plotly(bar.label) for bar in drawn])
    return figure


def _caption(reading: Reading) -> str:
    document = reading.document
    runs = len(reading.confirming(reading.emitted))
    if not document["measured"]["samples_per_s_ci95"] and not runs:
        return "Each from a single run of the search. There is no interval, and the fastest of many is often lucky."
    return (
        "Whiskers are 95 % intervals, dots are single runs, each in a new process, in alternating rounds. The "
        f"speed-up, {words.speedup(document)}, comes from {document['speedup']['pairs']} pairs of runs, so what slows "
        "down both cancels out."
    )


FIGURE = Figure(
    name="throughput",
    title="Throughput",
    build=lambda reading: draw(bars(reading)),
    caption=_caption,
)
