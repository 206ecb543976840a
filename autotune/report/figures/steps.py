"""What each knob is worth: one knob at a time, from the baseline to the best, as a waterfall chart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from autotune.report import words
from autotune.report.cleaning import for_plotly
from autotune.report.figures import style
from autotune.report.figures.figure import Figure
from autotune.report.ladder import Rung, ladder
from autotune.report.reading import Reading

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot


def _build(reading: Reading) -> Plot | None:
    from plotly import graph_objects as go

    rungs = ladder(reading)
    if len(rungs) < 2:
        return None
    first, last = rungs[0].samples_per_s, rungs[-1].samples_per_s
    modelled = _modelled(rungs)
    before = [0.0, *(rung.samples_per_s for rung in rungs[:-1]), 0.0]
    after = [*(rung.samples_per_s for rung in rungs), last]
    bar = go.Bar(
        y=list(range(len(after))),
        base=[min(pair) for pair in zip(before, after, strict=True)],
        x=[abs(high - low) for low, high in zip(before, after, strict=True)],
        orientation="h",
        width=0.6,
        marker={
            "color": [style.BASELINE, *map(_colour, zip(before[1:], rungs[1:], strict=False)), style.BEST],
            "pattern": {
                "shape": ["", *("/" if half else "" for half in modelled), ""],
                "fgcolor": "rgba(255,255,255,0.75)",
                "size": 6,
                "solidity": 0.35,
            },
        },
        text=["", *(f"{_gain(low, rung)}" for low, rung in zip(before[1:], rungs[1:], strict=False)), ""],
        textposition="outside",
        cliponaxis=False,
        customdata=[_told(rungs[0]), *map(_told, rungs[1:]), f"best: {words.rate(last)} samples/s"],
        hovertemplate="%{customdata}<extra></extra>",
    )
    figure = style.plot([bar], height=100 + 46 * (len(rungs) + 1), x="samples per second", showlegend=False)
    figure.update_xaxes(range=style.from_zero([first, *after], 1.28))
    style.rows(figure, ["baseline", *map(_label, rungs[1:], modelled), "best"])
    return figure


def _modelled(rungs: Sequence[Rung]) -> list[bool]:
    """For each step, whether one of its ends was predicted: the difference is then not a measurement."""
    return [before.predicted or after.predicted for before, after in pairwise(rungs)]


def _label(rung: Rung, modelled: bool) -> str:
    shown = [f"{for_plotly(knob, 40)} {for_plotly(words.setting(own), 24)}" for knob, (own, _) in rung.changes.items()]
    return "<br>".join(shown) + ("<br><i>predicted</i>" if modelled else "")


def _colour(step: tuple[float, Rung]) -> str:
    before, rung = step
    return style.GREEN if rung.samples_per_s >= before else style.ORANGE


def _gain(before: float, rung: Rung) -> str:
    return f"{'+' if rung.samples_per_s >= before else '−'}{style.percent(abs(rung.samples_per_s / before - 1))}"


def _told(rung: Rung) -> str:
    how = "predicted" if rung.predicted else "measured"
    within = f" ({words.rate(rung.low)} to {words.rate(rung.high)})" if rung.low and rung.high else ""
    return f"{how}: {words.rate(rung.samples_per_s)} samples/s{within}"


def _caption(reading: Reading) -> str:
    rungs = ladder(reading)
    if len(rungs) < 2:
        return "The result keeps the baseline, so there are no steps to show."
    text = (
        "One change at a time; the next is always the one that gains most. What a change gains here depends on those "
        "before it, and on the luck of single runs. The answer says what leaving it out of the best would cost."
    )
    predicted = sum(rung.predicted for rung in rungs)
    if predicted:
        text += (
            f" {predicted} of the {len(rungs) - 1} configurations on the way {'was' if predicted == 1 else 'were'} "
            "never tried. The performance model estimates them from the trials; hatched steps begin or end there. The "
            "next step to a measurement includes the error of the model."
        )
    return text


FIGURE = Figure(name="steps", title="From the baseline to the best, step by step", build=_build, caption=_caption)
