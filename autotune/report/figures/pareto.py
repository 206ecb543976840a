"""Throughput against memory: what speed costs, and the configurations that no other beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autotune.report import words
from autotune.report.cleaning import for_plotly, one_line
from autotune.report.figures import style
from autotune.report.figures.figure import Figure
from autotune.report.reading import Reading
from autotune.report.tried import CLOSE, Tried, smallest_close, tried

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot


def front(found: Sequence[Tried]) -> list[Tried]:
    """The configurations that no other beats in throughput without more memory, sorted by memory."""
    best: list[Tried] = []
    for one in sorted(found, key=lambda one: (one.peak_memory_bytes, -one.samples_per_s)):
        if not best or one.samples_per_s > best[-1].samples_per_s:
            best.append(one)
    return best


def _build(reading: Reading) -> Plot | None:
    from plotly import graph_objects as go

    found = [one for one in tried(reading).values() if one.peak_memory_bytes > 0]
    if len(found) < 2:
        return None
    unit, name = style.memory_unit([one.peak_memory_bytes for one in found])
    edge = front([one for one in found if one.eligible])
    refused = [one for one in found if not one.eligible]
    traces = [
        go.Scatter(
            x=[one.peak_memory_bytes / unit for one in edge],
            y=[one.samples_per_s for one in edge],
            mode="lines",
            line={"shape": "hv", "color": style.GREEN, "width": 1.5},
            name="nothing is faster with less memory",
            hoverinfo="skip",
        ),
        _marks(
            reading, "tried", [one for one in found if one.eligible], unit, color=style.translucent(style.GREY, 0.75)
        ),
        _marks(reading, "refused, or outside a constraint", refused, unit, symbol="x", color=style.FAILED),
        *(
            _marks(reading, label, [one], unit, size=14, symbol=symbol, color=colour, line={"width": 2})
            for label, (one, symbol, colour) in _marked(reading).items()
        ),
    ]
    traces = [trace for trace in traces if len(trace.x)]
    figure = style.plot(traces, height=400, x=f"peak memory, {name}", y="samples per second")
    figure.update_xaxes(range=style.from_zero([one.peak_memory_bytes / unit for one in found]))
    figure.update_yaxes(range=style.from_zero([one.samples_per_s for one in found]))
    return figure


def _marks(reading: Reading, name: str, some: Sequence[Tried], unit: float, **marker: Any) -> Any:
    from plotly import graph_objects as go

    return go.Scatter(
        x=[one.peak_memory_bytes / unit for one in some],
        y=[one.samples_per_s for one in some],
        mode="markers",
        name=name,
        marker={"size": 8, "line": {"width": 0}, **marker},
        customdata=[_told(reading, one) for one in some],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _marked(reading: Reading) -> dict[str, tuple[Tried, str, str]]:
    found = tried(reading)
    chosen = {
        "baseline": (found.get(reading.baseline), "square-open", style.BASELINE),
        "best": (found.get(reading.emitted), "circle-open", style.BEST),
        f"smallest within {style.percent(CLOSE)}": (smallest_close(reading), "diamond-open", style.GREEN),
    }
    return {label: (one, symbol, colour) for label, (one, symbol, colour) in chosen.items() if one is not None}


def _told(reading: Reading, one: Tried) -> str:
    how = "confirmed" if one.confirmed else "one run of the search"
    return (
        f"{words.rate(one.samples_per_s)} samples/s, {words.memory(one.peak_memory_bytes)}, {how}<br>"
        f"{for_plotly(words.changes(one.config, reading.baseline))}"
    )


def _caption(reading: Reading) -> str:
    smallest = smallest_close(reading)
    if smallest is None or not smallest.peak_memory_bytes:
        return "No trial reported its memory."
    what = one_line(words.changes(smallest.config, reading.baseline))
    figures = f"{words.memory(smallest.peak_memory_bytes)} at {words.rate(smallest.samples_per_s)} samples/s"
    near = f"within {style.percent(CLOSE)} of the best"
    if smallest.config == reading.emitted:
        return f"The best is also the smallest configuration {near}: {figures}."
    doubt = "" if smallest.confirmed else " (by one run of the search)"
    return (
        f"The smallest configuration {near} needs {figures}{doubt}, against "
        f"{words.memory(reading.document['measured']['peak_memory_bytes'])} for the best: {what}."
    )


FIGURE = Figure(name="pareto", title="Throughput against memory", build=_build, caption=_caption)
