"""Throughput and peak memory against the micro-batch size, for each dtype and layout, up to the memory limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autotune.config import TrainConfig
from autotune.records import TrialStatus
from autotune.report import words
from autotune.report.cleaning import for_plotly, one_line
from autotune.report.figures import style
from autotune.report.figures.figure import Figure
from autotune.report.ladder import expectations
from autotune.report.reading import Reading
from autotune.report.tried import Tried, tried

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot

_WORTH_A_LINE = 0.25
"""Share of the memory: if peaks stay below it, the figure does not show the limit."""


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """The configurations of one dtype and layout."""

    amp_dtype: str
    memory_format: str
    colour: str
    tried: Sequence[Tried]
    wall: int | None
    """The smallest micro-batch size that ran out of memory; None if none did."""

    @property
    def name(self) -> str:
        return f"{'fp32' if self.amp_dtype == 'none' else self.amp_dtype}, {self.memory_format}"

    @property
    def dash(self) -> str:
        return "dot" if self.memory_format == "contiguous" else "solid"

    @property
    def symbol(self) -> str:
        return "circle-open" if self.memory_format == "contiguous" else "circle"


def _key(config: TrainConfig) -> tuple[str, str]:
    return config.amp_dtype, config.memory_format


def _cells(reading: Reading) -> list[_Cell]:
    walls: dict[tuple[str, str], int] = {}
    for record in reading.searched:
        if record.result.status is TrialStatus.OOM:
            key, size = _key(record.result.config), record.result.config.micro_batch_size
            walls[key] = min(size, walls.get(key, size))
    by_key: dict[tuple[str, str], list[Tried]] = {key: [] for key in walls}
    for one in tried(reading).values():
        by_key.setdefault(_key(one.config), []).append(one)
    keys = sorted(by_key, key=lambda key: (["none", "bf16", "fp16"].index(key[0]), key[1]))
    return [
        _Cell(
            amp_dtype=key[0],
            memory_format=key[1],
            colour={"none": style.GREY, "bf16": style.BLUE, "fp16": style.PURPLE}[key[0]],
            tried=by_key[key],
            wall=walls.get(key),
        )
        for key in keys
    ]


def _sizes(reading: Reading) -> list[int]:
    """All micro-batch sizes of the space, and the baseline's."""
    searched = [dimension.values for dimension in reading.space.dimensions if dimension.knob == "micro_batch_size"]
    found = {size for values in searched for size in values if isinstance(size, int)}
    return sorted({*found, *(record.result.config.micro_batch_size for record in reading.searched)})


def _build(reading: Reading) -> Plot | None:
    from plotly.subplots import make_subplots

    cells, sizes = _cells(reading), _sizes(reading)
    if len(sizes) < 2:
        return None
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.62, 0.38])
    style.dress(figure)
    peaks = [one.peak_memory_bytes for cell in cells for one in cell.tried]
    unit, name = style.memory_unit(peaks)
    for cell in cells:
        figure.add_traces(_model_curve(reading, cell, sizes), rows=1, cols=1)
        figure.add_trace(_points(reading, cell), row=1, col=1)
        figure.add_trace(_memory(reading, cell, unit), row=2, col=1)
    _walls(figure, cells, sizes)
    _end_of_memory(figure, reading, max(peaks, default=0), unit)
    figure.update_layout(template={}, height=560, legend={"tracegroupgap": 0})
    first, last = sizes[0] / 1.25, sizes[-1] * 1.25
    figure.update_xaxes(
        type="log", range=[math.log10(first), math.log10(last)], tickvals=sizes, ticktext=list(map(str, sizes))
    )
    figure.update_xaxes(title_text="micro-batch size, samples", row=2, col=1)
    fastest = [one.samples_per_s for cell in cells for one in cell.tried]
    figure.update_yaxes(title_text="samples per second", range=style.from_zero(fastest), row=1, col=1)
    figure.update_yaxes(title_text=f"peak memory, {name}", rangemode="tozero", row=2, col=1)
    return figure


def _points(reading: Reading, cell: _Cell) -> Any:
    from plotly import graph_objects as go

    return go.Scatter(
        x=[one.config.micro_batch_size for one in cell.tried],
        y=[one.samples_per_s for one in cell.tried],
        mode="markers",
        name=cell.name,
        legendgroup=cell.name,
        marker={"color": cell.colour, "symbol": cell.symbol, "size": 8, "line": {"width": 1.5, "color": cell.colour}},
        customdata=[for_plotly(words.changes(one.config, reading.baseline)) for one in cell.tried],
        hovertemplate="%{y:,.4~r} samples/s at %{x}<br>%{customdata}<extra></extra>",
    )


def _model_curve(reading: Reading, cell: _Cell, sizes: Sequence[int]) -> list[Any]:
    """The throughput that the performance model predicts for the best configuration's other settings in this cell."""
    from plotly import graph_objects as go

    if len(cell.tried) < 2:
        return []
    changed = reading.emitted.with_values({"amp_dtype": cell.amp_dtype, "memory_format": cell.memory_format})
    fitting = [size for size in sizes if cell.wall is None or size < cell.wall]
    configs = [reading.space.complete(changed.with_values({"micro_batch_size": size})) for size in fitting]
    if not configs:
        return []
    return [
        go.Scatter(
            x=fitting,
            y=[value for value, _, _ in expectations(reading, configs)],
            mode="lines",
            line={"color": cell.colour, "dash": cell.dash, "width": 1.5, "shape": "spline", "smoothing": 0.6},
            opacity=0.55,
            legendgroup=cell.name,
            showlegend=False,
            name=f"{cell.name}: model",
            hovertemplate="model: %{y:,.4~r} samples/s at %{x}<extra></extra>",
        )
    ]


def _memory(reading: Reading, cell: _Cell, unit: float) -> Any:
    """The least memory that each size needed; other knobs may need more."""
    from plotly import graph_objects as go

    least: dict[int, float] = {}
    for one in cell.tried:
        size = one.config.micro_batch_size
        if one.peak_memory_bytes:
            least[size] = min(one.peak_memory_bytes / unit, least.get(size, float("inf")))
    return go.Scatter(
        x=sorted(least),
        y=[least[size] for size in sorted(least)],
        mode="lines+markers",
        line={"color": cell.colour, "dash": cell.dash, "width": 1.5},
        marker={"color": cell.colour, "symbol": cell.symbol, "size": 7, "line": {"width": 1.5, "color": cell.colour}},
        legendgroup=cell.name,
        showlegend=False,
        name=cell.name,
        hovertemplate=f"{cell.name}: %{{y:,.4~r}} at %{{x}}<extra></extra>",
    )


def _walls(figure: Plot, cells: Sequence[_Cell], sizes: Sequence[int]) -> None:
    """Shade the sizes from the smallest that ran out of memory; the shades of several cells add up."""
    walled = [cell for cell in cells if cell.wall is not None]
    for place, cell in enumerate(walled):
        edge = _edge(cell.wall or 0, sizes)
        in_left_half = edge**2 < sizes[0] * sizes[-1]  # on a logarithmic axis; the label goes where there is space
        for row in (1, 2):
            figure.add_vrect(
                x0=edge,
                x1=sizes[-1] * 1.25,
                fillcolor=cell.colour,
                opacity=0.1,
                line_width=0,
                layer="below",
                row=row,
                col=1,
            )
            figure.add_vline(x=edge, line={"color": cell.colour, "width": 1, "dash": cell.dash}, row=row, col=1)
        figure.add_annotation(
            x=math.log10(edge),
            y=0.02 + 0.07 * place,
            xref="x",
            yref="y domain",
            text=f"{cell.name}: out of memory",
            showarrow=False,
            xanchor="left" if in_left_half else "right",
            yanchor="bottom",
            font={"size": 11, "color": cell.colour},
        )


def _edge(wall: int, sizes: Sequence[int]) -> float:
    """The middle, on the axis, between the size that ran out of memory and the next smaller one."""
    below = max((size for size in sizes if size < wall), default=wall / 1.4)
    return math.sqrt(below * wall)


def _end_of_memory(figure: Plot, reading: Reading, peak: float, unit: float) -> None:
    limit = _limit_bytes(reading)
    if peak < _WORTH_A_LINE * limit:
        return
    figure.add_hline(
        y=limit / unit,
        line={"color": style.FAILED, "width": 1, "dash": "dash"},
        annotation={"text": f"device memory: {words.memory(limit)}", "font": {"size": 11}},
        annotation_position="bottom left",
        row=2,
        col=1,
    )


def _limit_bytes(reading: Reading) -> float:
    facts = reading.facts
    return facts.host.memory_bytes if facts.device.kind == "cpu" else facts.device.total_memory_bytes


def _caption(reading: Reading) -> str:
    if len(_sizes(reading)) < 2:
        return "Only one micro-batch size was tried."
    walled = [f"{cell.name} at {cell.wall}" for cell in _cells(reading) if cell.wall is not None]
    ended = f"Ran out of memory: {'; '.join(walled)}." if walled else "Nothing ran out of memory"
    has = "" if walled else f" (the device has {words.memory(_limit_bytes(reading))})."
    best = one_line(words.changes(reading.emitted, reading.baseline))
    return (
        f"Points are tried configurations, with any values of the other knobs. Lines are what the performance model "
        f"expects with the other settings of the best ({best}). {ended}{has}"
    )


FIGURE = Figure(name="batch", title="Throughput and memory against the batch", build=_build, caption=_caption)
