"""Part 6: how the search went, trial by trial."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from autotune.records import TrialRecord
from autotune.report import words
from autotune.report.cleaning import one_line
from autotune.report.html.charts import chart
from autotune.report.html.parts import Markup, code, details, joined, listing, section, table, tag
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
        _learned(reading),
        details(
            f"All {len(reading.records):,} runs as a table",
            table(headings, rows, numeric=(0, 1, 4, 5, 6), class_="runs"),
            tag("p", f"{left_out:,} more are in trials/.") if left_out else None,
        ),
    )


def _learned(reading: Reading) -> Markup | None:
    """What the strategy's model learned, as a table, and what more trials would bring."""
    effort = reading.document["search"]
    strategy = effort.get("strategy", {})
    parts: list[object] = []
    if strategy.get("gave_up"):
        parts.append(tag("p", one_line(words.gave_up(strategy), 400)))
    if more := words.left_to_gain(effort):
        parts.append(tag("p", f"The search took {words.elapsed(effort)}; {more}."))
    learned = strategy.get("learned", {})
    if effects := learned.get("effects"):
        about = (
            "What the model expects if one setting of the fastest trial changes: 1.00× is as fast, more is faster. "
            "If the interval contains 1.00, the trials cannot tell. These are estimates from all trials together, not "
            "measurements. The fastest trial need not be the result of the study."
        )
        headings = ("setting", "changed to", "instead of", "throughput", "95 % interval")
        parts += [tag("h3", "What the model learned"), tag("p", about)]
        parts.append(table(headings, map(_effect, effects), numeric=(3, 4), class_="learned"))
    return joined([*parts, listing(one_line(fact, 300) for fact in learned.get("facts", []))]) if parts else None


def _effect(effect: dict[str, Any]) -> tuple[object, ...]:
    ((knob, value),) = effect["set"].items()
    shown = (code(one_line(knob)), *(one_line(words.setting(each)) for each in (value, effect["instead_of"][knob])))
    return (*shown, f"{effect['ratio']:.2f}×", words.interval(effect["ci95"]))


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
