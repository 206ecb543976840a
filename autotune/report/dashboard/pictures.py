"""Pictures of a study as PNG, for places that show no plotly figures."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from autotune.report import words
from autotune.report.reading import Reading
from autotune.search.figures import is_ok, samples_per_s

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PHASES = {
    "data_wait_fraction": ("waiting for data", "#e69f00"),
    "copy_fraction": ("copying", "#56b4e9"),
    "forward_backward_fraction": ("forward and backward", "#0072b2"),
    "optimizer_fraction": ("optimizer", "#cc79a7"),
}
_FAILED = "#d55e00"


def _speed(reading: Reading) -> bytes:
    """Time of one sample by phase, before and after: the shorter bar is faster."""
    sections = {"emitted": reading.document["measured"], "baseline": reading.document["baseline"]}
    figure = _figure(2.6)
    axes = figure.subplots()
    for place, section in enumerate(sections.values()):
        left, whole = 0.0, 1000.0 / section["samples_per_s"]
        for phase, (label, colour) in _PHASES.items():
            width = whole * section[phase]
            axes.barh(place, width, left=left, color=colour, label=label if place == 0 else None)
            left += width
        axes.annotate(f" {words.rate(section['samples_per_s'])} samples/s", (whole, place), va="center")
    axes.set_yticks(range(len(sections)), list(sections))
    axes.set(xlabel="ms a sample")
    axes.margins(x=0.25)
    axes.set_xlim(left=0)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return _png(figure)


def _search(reading: Reading) -> bytes:
    """Every trial of the search against budget seconds, and the fastest so far."""
    figure = _figure(3.6)
    axes = figure.subplots()
    done = [record for record in reading.searched if is_ok(record)]
    times, rates = [record.elapsed_s for record in done], list(map(samples_per_s, done))
    axes.plot(times, rates, "o", color="#0072b2", label="trial")
    best = [max(rates[: place + 1]) for place in range(len(rates))]
    axes.step(times, best, where="post", color="black", linewidth=1, label="fastest so far (single runs)")
    failed = [record.elapsed_s for record in reading.searched if not is_ok(record)]
    if failed:
        axes.plot(failed, [0.0] * len(failed), "x", color=_FAILED, label="failed", clip_on=False)
    baseline = reading.document["baseline"]["samples_per_s"]
    axes.axhline(baseline, color="grey", linestyle="--", linewidth=1, label="baseline, confirmed")
    axes.set(xlabel="seconds of the budget", ylabel="samples/s")
    axes.set_ylim(0, 1.08 * max([*rates, baseline]))
    axes.set_xlim(left=0)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return _png(figure)


PICTURES: dict[str, Callable[[Reading], bytes]] = {"where-the-time-goes": _speed, "search": _search}
"""File name → picture."""


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure  # half a second that only pictures need to spend

    return Figure(figsize=(8, height), layout="constrained")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
