"""Time of a sample by phase, before and after: why the best is faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autotune.report.cleaning import for_plotly
from autotune.report.figures import style
from autotune.report.figures.figure import Figure
from autotune.report.figures.throughput import Bar, bars
from autotune.report.reading import Reading

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot

PHASES = {
    "data_wait": ("waiting for data", style.ORANGE),
    "copy": ("copy to the device", style.PURPLE),
    "forward_backward": ("forward + backward", style.BLUE),
    "optimizer": ("optimizer", style.GREEN),
}
_ROOM_FOR_TEXT = 0.06
"""Share of the longest bar."""


def milliseconds(figures: Mapping[str, Any]) -> dict[str, float]:
    """Milliseconds of each phase, for one sample."""
    whole = 1000 / figures["samples_per_s"]
    return {phase: whole * (figures.get(f"{phase}_fraction") or 0.0) for phase in PHASES}


def draw(drawn: Sequence[Bar]) -> Plot:
    from plotly import graph_objects as go

    times = [milliseconds(bar.figures) for bar in drawn]
    longest = max(sum(time.values()) for time in times)
    traces = [
        go.Bar(
            y=list(range(len(drawn))),
            x=[time[phase] for time in times],
            orientation="h",
            width=0.55,
            name=name,
            marker={"color": colour, "line": {"width": 0}},
            text=[f"{time[phase]:.3g}" if time[phase] >= _ROOM_FOR_TEXT * longest else "" for time in times],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            textfont={"color": "white"},
            hovertemplate=name + ": %{x:.3~r} ms per sample<extra></extra>",
        )
        for phase, (name, colour) in PHASES.items()
    ]
    figure = style.plot(traces, height=130 + 55 * len(drawn), x="milliseconds per sample", barmode="stack")
    figure.update_layout(legend={"traceorder": "normal"})
    figure.update_xaxes(range=style.from_zero([longest], 1.03))
    style.rows(figure, [for_plotly(bar.label) for bar in drawn])
    return figure


def _build(reading: Reading) -> Plot | None:
    drawn = bars(reading)
    return draw(drawn) if any(sum(milliseconds(bar.figures).values()) > 0 for bar in drawn) else None


def _caption(reading: Reading) -> str:
    before, after = milliseconds(reading.document["baseline"]), milliseconds(reading.document["measured"])
    if not sum(before.values()):
        return "No phases were timed."
    if reading.emitted == reading.baseline:
        return f"Of the baseline, {reading.document['baseline'].get('bottleneck', 'whose bottleneck is unknown')}."
    saved = {phase: before[phase] - after[phase] for phase in PHASES}
    most, least = (chosen(saved, key=lambda phase: saved[phase]) for chosen in (max, min))
    text = f"The shorter bar is the faster one. {_moved(most, before, after)}"
    if saved[least] < -0.02 * sum(before.values()):
        text += f", while {_moved(least, before, after).lower()}"
    return f"{text}."


def _moved(phase: str, before: Mapping[str, float], after: Mapping[str, float]) -> str:
    word = "fell" if after[phase] < before[phase] else "rose"
    name = PHASES[phase][0]
    return f"{name[0].upper()}{name[1:]} {word} from {before[phase]:.3g} to {after[phase]:.3g} ms a sample"


FIGURE = Figure(name="phases", title="Where the time goes", build=_build, caption=_caption)
