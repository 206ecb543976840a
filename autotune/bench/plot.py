"""Plots what strategies have found over time: PNG, SVG, or an HTML page with the picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from autotune.bench import scores
from autotune.bench.replay import Outcome
from autotune.errors import SpecError
from autotune.store import speaking_of, write_atomically

FORMATS = (".png", ".svg", ".html")
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""The colours of Okabe and Ito, which colour-blind readers can distinguish."""
_PANEL_INCHES = (6.4, 4.0)


def write_plot(path: Path, outcomes: Sequence[Outcome]) -> None:
    """One panel per table. Raises SpecError for a file name of another format, EnvironmentFailure if it cannot be
    written."""
    if path.suffix not in FORMATS:
        raise SpecError(f"--plot: {path.name} is no {', '.join(FORMATS)}")
    picture = _draw(outcomes, "png" if path.suffix == ".png" else "svg")
    content = _page(outcomes, picture) if path.suffix == ".html" else picture
    with speaking_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def _draw(outcomes: Sequence[Outcome], kind: str) -> bytes:
    from matplotlib.figure import Figure  # half a second that only plots need to spend

    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width, height * len(outcomes)), layout="constrained")
    for panel, outcome in zip(np.ravel(figure.subplots(len(outcomes), 1)), outcomes, strict=True):
        times = scores.moments(outcome.budget_s)
        panel.plot(times, outcome.random, color="grey", linestyle="--", label="random, expected")
        for number, (name, runs) in enumerate(outcome.runs.items()):
            found = np.stack([run.found for run in runs])
            colour = _COLOURS[number % len(_COLOURS)]
            panel.plot(times, np.median(found, axis=0), color=colour, label=name)
            low, high = np.quantile(found, [0.1, 0.9], axis=0)
            panel.fill_between(times, low, high, color=colour, alpha=0.15, linewidth=0)
        panel.axhline(1 - scores.CLOSE, color="black", linewidth=0.5, linestyle=":")
        panel.set(
            title=f"{outcome.table}: {outcome.configurations} configurations",
            xlabel="trial seconds",
            ylabel="found ÷ best",
            xlim=(0, outcome.budget_s),
            ylim=(min(0.5, float(outcome.random[0])), 1.02),
        )
        panel.legend(loc="lower right", title="median, 10 % to 90 %")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=120)
    return buffer.getvalue()


def _page(outcomes: Sequence[Outcome], svg: bytes) -> str:
    names = escape(", ".join(outcome.table for outcome in outcomes))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{names}</title>"
        f"<body style='margin:auto;max-width:60rem'>{svg.decode()}</body></html>\n"
    )
