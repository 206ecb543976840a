"""The search over time: every trial, and the best so far."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autotune.records import Purpose, TrialRecord, TrialStatus
from autotune.report import words
from autotune.report.cleaning import for_plotly
from autotune.report.figures import style
from autotune.report.figures.figure import Figure
from autotune.report.reading import Reading
from autotune.search.figures import has_failed, is_ok, samples_per_s

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot


def _build(reading: Reading) -> Plot | None:
    from plotly import graph_objects as go

    searched = [record for record in reading.searched if is_ok(record)]
    finished = [record for record in searched if record.result.status is TrialStatus.OK]
    stopped = [record for record in searched if record.result.status is TrialStatus.PRUNED]
    rounds = [record for record in reading.of_purpose(Purpose.CONFIRM) if is_ok(record)]
    ours = [record for record in rounds if record.result.config == reading.emitted]
    others = [record for record in rounds if record.result.config != reading.emitted]
    failed = [record for record in reading.records if has_failed(record)]
    kinds = (
        ("trial", finished, {"color": style.BLUE}),
        ("stopped early", stopped, {"color": style.BLUE, "symbol": "circle-open"}),
        ("round of the best", ours, {"color": style.GREEN, "symbol": "diamond"}),
        ("round of another", others, {"color": style.GREY, "symbol": "diamond-open"}),
        ("failed", failed, {"color": style.FAILED, "symbol": "x", "size": 9}),
    )
    traces = [_marks(reading, name, records, marker) for name, records, marker in kinds if records]
    times, bests = _incumbent(reading)
    line = go.Scatter(
        x=times,
        y=bests,
        mode="lines",
        name="best so far",
        line={"shape": "hv", "color": style.GREEN, "width": 2},
        hovertemplate="best so far: %{y:,.4~r} samples/s<extra></extra>",
    )
    budget_s = float(reading.document["search"]["budget_s"])
    figure = style.plot([line, *traces], height=400, x="seconds of the budget", y="samples per second")
    figure.update_xaxes(range=[0, max(budget_s, *(record.elapsed_s for record in reading.records)) * 1.01])
    fastest = [samples_per_s(record) for record in (*searched, *rounds)]
    top = style.from_zero(fastest)[1]
    figure.update_yaxes(range=[-0.04 * top if failed else 0, top])
    return figure


def _marks(reading: Reading, name: str, records: Sequence[TrialRecord], marker: dict[str, Any]) -> Any:
    from plotly import graph_objects as go

    return go.Scatter(
        x=[record.elapsed_s for record in records],
        y=[samples_per_s(record) if is_ok(record) else 0.0 for record in records],
        mode="markers",
        name=name,
        marker={"size": 7, "line": {"width": 1.5, "color": marker["color"]}, **marker},
        customdata=[_told(reading, record) for record in records],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _told(reading: Reading, record: TrialRecord) -> str:
    failure = record.result.failure
    outcome = f"{words.rate(samples_per_s(record))} samples/s" if is_ok(record) else str(record.result.status)
    reason = f"<br>{for_plotly(failure.reason)}" if failure else ""
    what = for_plotly(words.changes(record.result.config, reading.baseline))
    return f"run {record.number}: {outcome}<br>{what}{reason}"


def _incumbent(reading: Reading) -> tuple[list[float], list[float]]:
    """The fastest trial of the search that meets the constraints, to the end of the search."""
    done = [record for record in reading.searched if is_ok(record) and reading.meets_constraints(record)]
    times = [record.elapsed_s for record in done]
    bests = list(itertools.accumulate(map(samples_per_s, done), max))
    end = max((record.elapsed_s for record in reading.searched), default=0.0)
    return [*times, end][: len(times) + bool(times)], [*bests, *bests[-1:]]


def _caption(reading: Reading) -> str:
    effort = reading.document["search"]
    failed = sum(map(has_failed, reading.records))
    lost = f" {failed} without a measurement {'is' if failed == 1 else 'are'} drawn at zero." if failed else ""
    return (
        f"{words.runs(effort)}. Each trial trains from the start.{lost} The best so far is the fastest single "
        "run that meets the constraints; the "
        "rounds after it decide what is emitted."
    )


FIGURE = Figure(name="history", title="The search over time", build=_build, caption=_caption)
