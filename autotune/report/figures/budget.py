"""Where the budget went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotune.records import SEARCHING, Purpose, TrialRecord
from autotune.report.figures import style
from autotune.report.figures.figure import Figure
from autotune.report.reading import Reading
from autotune.search.figures import has_failed
from autotune.spec.durations import format_duration

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot

_TESTING = (Purpose.REFERENCE, Purpose.PROBE, Purpose.SOAK)
_PARTS = {
    "search": style.BLUE,
    "confirmation": style.GREEN,
    "stability tests": style.PURPLE,
    "lost to failures": style.ORANGE,
    "starting processes": style.GOLD,
    "between trials": style.GREY,
    "not used": style.translucent(style.GREY, 0.25),
}


def spent_s(reading: Reading) -> dict[str, float]:
    """Seconds of each part; they add up to the budget, or to more if it was exceeded."""
    parts = dict.fromkeys(_PARTS, 0.0)
    for record in reading.records:
        if record.purpose is Purpose.VERIFY:
            continue  # has a budget of its own, later
        start_up = 0.0 if has_failed(record) else record.result.start_up_s or 0.0
        parts["starting processes"] += start_up
        parts[_part(record)] += record.result.wall_s - start_up
    effort = reading.document["search"]
    elapsed = max(float(effort["elapsed_s"]), *(record.elapsed_s for record in reading.records))
    parts["between trials"] = max(elapsed - sum(parts.values()), 0.0)
    parts["not used"] = max(float(effort["budget_s"]) - elapsed, 0.0)
    return parts


def _part(record: TrialRecord) -> str:
    if has_failed(record):
        return "lost to failures"
    if record.purpose in (*SEARCHING, Purpose.REPEAT, Purpose.SIDE):
        return "search"
    return "stability tests" if record.purpose in _TESTING else "confirmation"


def _build(reading: Reading) -> Plot | None:
    from plotly import graph_objects as go

    parts = spent_s(reading)
    whole = sum(parts.values())
    traces = [
        go.Bar(
            y=[""],
            x=[seconds],
            orientation="h",
            width=0.7,
            name=name,
            marker={"color": _PARTS[name], "line": {"width": 0}},
            text=[style.percent(seconds / whole) if seconds >= 0.06 * whole else ""],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            textfont={"color": None if name == "not used" else "white"},
            hovertemplate=f"{name}: %{{x:.0f}} s<extra></extra>",
        )
        for name, seconds in parts.items()
        if seconds > 0.001 * whole
    ]
    figure = style.plot(traces, height=170, x="seconds", barmode="stack")
    figure.update_layout(legend={"traceorder": "normal"})
    figure.update_xaxes(range=[0, whole])
    figure.update_yaxes(showticklabels=False, gridcolor="rgba(0,0,0,0)", zeroline=False)
    return figure


def _caption(reading: Reading) -> str:
    effort, parts = reading.document["search"], spent_s(reading)
    return (
        f"{format_duration(round(effort['elapsed_s']))} of {format_duration(round(effort['budget_s']))} used; "
        f"{effort['training_s']:.0f} s of it inside training steps. Between trials lie the start of PyTorch, the "
        "choice of the next configuration, and the writing of records; "
        f"{parts['lost to failures']:.0f} s went into trials without a measurement."
    )


FIGURE = Figure(name="budget", title="Where the budget went", build=_build, caption=_caption)
