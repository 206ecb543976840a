"""Part 6: how the search went, trial by trial."""

from __future__ import annotations

from collections.abc import Iterator

from autotune.records import TrialRecord
from autotune.report import words
from autotune.report.cleaning import one_line
from autotune.report.html.charts import chart
from autotune.report.html.parts import Markup, details, joined, listing, section, table, tag
from autotune.report.reading import Reading
from autotune.search.figures import is_ok, samples_per_s

_MOST_ROWS = 1000


def course(reading: Reading) -> Markup:
    headings = ("run", "at", "purpose", "status", "samples/s", "predicted", "memory", "settings")
    shown = reading.records[:_MOST_ROWS]
    rows = (tuple(_row(reading, record)) for record in shown)
    left_out = len(reading.records) - len(shown)
    return section(
        "search",
        "The search",
        chart(reading, "history"),
        chart(reading, "budget"),
        chart(reading, "predictions"),
        _beliefs(reading),
        details(
            f"All {len(reading.records):,} runs as a table",
            table(headings, rows, numeric=(0, 1, 4, 5, 6), class_="runs"),
            tag("p", f"{left_out:,} more are in trials/.") if left_out else None,
        ),
    )


def _beliefs(reading: Reading) -> Markup | None:
    section_of = reading.document["search"].get("strategy", {})
    parts: list[object] = []
    if section_of.get("gave_up"):
        said = f"{section_of['name']} gave its model up: {section_of['gave_up']}; Optuna's GPSampler went on."
        parts.append(tag("p", one_line(said, 400)))
    if "left_to_gain" in section_of:
        parts.append(tag("p", f"The search was {words.left_to_gain(reading.document['search'])}."))
    if section_of.get("beliefs"):
        parts.append(tag("p", f"{words.BELIEFS.capitalize()}:"))
        parts.append(listing(one_line(belief, 300) for belief in section_of["beliefs"]))
    return joined(parts) if parts else None


def _row(reading: Reading, record: TrialRecord) -> Iterator[object]:
    result, predicted = record.result, record.predicted
    yield record.number
    yield f"{record.elapsed_s:.0f} s"
    yield _purpose(record)
    yield str(result.status)
    yield words.rate(samples_per_s(record)) if is_ok(record) else "–"
    yield words.rate(predicted.samples_per_s) if predicted else "–"
    yield words.memory(result.memory.peak_bytes) if result.memory else "–"
    yield one_line(words.changes(result.config, reading.baseline), 240)


def _purpose(record: TrialRecord) -> str:
    rate = record.result.side_rate
    if record.result.side is None:
        return str(record.purpose)
    return f"{record.result.side} alone" + (f": {words.rate(rate.per_s)}/s" if rate else "")
