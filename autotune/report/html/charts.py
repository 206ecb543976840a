"""Parts 2 to 4: why it is faster, what each knob is worth, and the influence of batch size and memory."""

from __future__ import annotations

from autotune.report.figures import FIGURES
from autotune.report.html.parts import Markup, figure, section, tag
from autotune.report.reading import Reading

_WIDE = {"batch", "pareto", "losses", "history"}


def chart(reading: Reading, name: str) -> Markup:
    chosen = FIGURES[name]
    return figure(name, chosen.title, chosen.build(reading), chosen.caption(reading), wide=name in _WIDE)


def why(reading: Reading) -> Markup:
    document = reading.document
    now, before = (document[part].get("bottleneck", "unknown") for part in ("measured", "baseline"))
    title = "Why it is faster" if reading.emitted != reading.baseline else "Where the time goes"
    told = f"Best: {now}. Baseline: {before}." if reading.emitted != reading.baseline else f"{before}."
    told = told[0].upper() + told[1:]
    return section("why", title, tag("p", told), chart(reading, "throughput"), chart(reading, "phases"))


def knobs(reading: Reading) -> Markup:
    return section("knobs", "What each knob is worth", chart(reading, "steps"), chart(reading, "importances"))


def batch(reading: Reading) -> Markup:
    return section("batch", "Batch size and memory", chart(reading, "batch"), chart(reading, "pareto"))
