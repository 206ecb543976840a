"""Whether the finalists learn like fp32: their losses against samples seen, together with reference runs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autotune.config import TrainConfig
from autotune.records import Purpose, TrialRecord, TrialResult
from autotune.report import words
from autotune.report.cleaning import for_plotly
from autotune.report.figures import style
from autotune.report.figures.figure import Figure
from autotune.report.reading import Reading
from autotune.search.plain import arithmetic, reference_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot

_MOST_POINTS = 200
_MOST_FINALISTS = 5
Curve = tuple[list[float], list[float]]


def curve(run: TrialResult, most: int = _MOST_POINTS) -> Curve:
    """(samples seen, mean loss). Neighbouring steps are combined if there are more than `most`. Steps that the
    GradScaler skipped are left out, because they train nothing."""
    if run.steps is None:
        return [], []
    taken = [
        (loss, samples)
        for loss, samples, skipped in zip(run.steps.losses, run.steps.samples, run.steps.skipped, strict=True)
        if not skipped
    ]
    seen: list[float] = []
    losses: list[float] = []
    size, position = -(-len(taken) // most) or 1, 0
    for start in range(0, len(taken), size):
        chunk = taken[start : start + size]
        count = sum(samples for _, samples in chunk)
        if count < 1:
            continue
        seen.append(position + count / 2 if size > 1 else position + count)
        losses.append(sum(loss * samples for loss, samples in chunk) / count)
        position += count
    return seen, losses


def _runs(reading: Reading, purpose: Purpose) -> list[TrialRecord]:
    return [run for run in reading.of_purpose(purpose) if run.result.steps and len(run.result.steps.losses) > 1]


def _build(reading: Reading) -> Plot | None:
    probes, references = _runs(reading, Purpose.PROBE), _runs(reading, Purpose.REFERENCE)
    if not probes and not references:
        return _against_baseline(reading)
    traces: list[Any] = []
    by_config: dict[TrainConfig, list[TrialResult]] = {}
    for record in references:
        by_config.setdefault(record.result.config, []).append(record.result)
    for place, runs in enumerate(by_config.values()):
        traces += _reference(runs, name="fp32 reference" if len(by_config) == 1 else f"fp32 reference {place + 1}")
    for colour, record in zip((style.BLUE, *style.CYCLE[1:]), probes[:_MOST_FINALISTS], strict=False):
        traces.append(_line(record.result, _finalist(reading, record.result.config), colour))
    return _plot(traces)


def _against_baseline(reading: Reading) -> Plot | None:
    """If all configurations use fp32: the best and the baseline in the first round, from the same weights."""
    configs = {"baseline": (reading.baseline, style.BASELINE), "best": (reading.emitted, style.BEST)}
    if reading.emitted == reading.baseline:
        configs.pop("best")
    runs = {name: reading.confirming(config)[:1] for name, (config, _) in configs.items()}
    traces = [
        _line(record.result, name, configs[name][1])
        for name, found in runs.items()
        for record in found
        if record.result.steps and len(record.result.steps.losses) > 1
    ]
    return _plot(traces) if traces else None


def _plot(traces: Sequence[Any]) -> Plot:
    figure = style.plot(traces, height=380, x="samples seen", y="training loss")
    figure.update_xaxes(range=[0, 1.02 * max(max(trace.x) for trace in traces if len(trace.x))])
    return figure


def _finalist(reading: Reading, config: TrainConfig) -> str:
    what = for_plotly(words.changes(config, reading.baseline), 60)
    if config in reading.refused:
        return f"refused: {what}"
    return "best" if config == reading.emitted else what


def _line(run: TrialResult, name: str, colour: str, **line: Any) -> Any:
    from plotly import graph_objects as go

    seen, losses = curve(run)
    return go.Scatter(
        x=seen,
        y=losses,
        mode="lines",
        name=name,
        line={"color": colour, "width": 2, **line},
        hovertemplate=f"{name}: %{{y:.4~r}} after %{{x:,}} samples<extra></extra>",
    )


def _reference(runs: Sequence[TrialResult], name: str) -> list[Any]:
    """The reference run with the finalists' seed as a line, and a band of two standard deviations around the mean of
    all seeds."""
    from plotly import graph_objects as go

    first = min(runs, key=lambda run: run.seed)
    traces = [_line(first, name, style.GREY)]
    curves = [curve(run) for run in runs]
    shortest = min(len(losses) for _, losses in curves)
    if len(curves) < 2 or not shortest:
        return traces
    seen = min((seen for seen, _ in curves), key=len)[:shortest]
    columns = [[losses[place] for _, losses in curves] for place in range(shortest)]
    means = [statistics.fmean(column) for column in columns]
    spreads = [2 * statistics.stdev(column) for column in columns]
    band = go.Scatter(
        x=[*seen, *reversed(seen)],
        y=[
            *(mean + spread for mean, spread in zip(means, spreads, strict=True)),
            *(mean - spread for mean, spread in reversed(list(zip(means, spreads, strict=True)))),
        ],
        fill="toself",
        fillcolor=style.translucent(style.GREY, 0.18),
        line={"width": 0},
        mode="lines",
        name=f"band of {len(curves)} seeds",
        hoverinfo="skip",
    )
    return [band, *traces]


def _caption(reading: Reading) -> str:
    probes, references = _runs(reading, Purpose.PROBE), _runs(reading, Purpose.REFERENCE)
    if not probes and not references:
        config = reading.emitted
        if arithmetic(config) == arithmetic(reference_of(config, reading.facts)):
            return "The result computes like the fp32 reference, so no reference ran. Losses of the first round."
        return (
            "The result changes the numerics, and the study ended before it was compared with the fp32 reference. "
            "Losses of the first round."
        )
    if not references:
        return "Finalists, from the same weights. The study ended before the fp32 reference ran."
    if not probes:
        return "The fp32 reference. The study ended before a finalist ran."
    seeds = len({run.result.seed for run in references})
    band = (
        f" The band is the mean of {seeds} seeds of the reference ± 2 standard deviations: how far harmless "
        "differences change a run."
    )
    left_out = (
        f" {len(probes) - _MOST_FINALISTS} more finalists are not drawn." if len(probes) > _MOST_FINALISTS else ""
    )
    return (
        "Finalists and the reference (IEEE fp32, eager, contiguous) start from the same weights and see the same "
        f"samples in the same order.{band if seeds > 1 else ''}{left_out}"
    )


FIGURE = Figure(name="losses", title="Loss of the finalists beside fp32", build=_build, caption=_caption)
