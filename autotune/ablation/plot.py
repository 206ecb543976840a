"""The results as a picture: dots with error bars, ratios on a logarithmic axis with a line at 1."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from autotune.ablation.tables import name_of
from autotune.records import Ablation, Effect, Ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("svg", "png")
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""The colours of Okabe and Ito, which colour-blind readers can distinguish."""
_MARKERS = "osD^vPX"
_ROW_INCHES, _FRAME_INCHES = 0.32, 1.5
_TICKS = (0.1, 0.2, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 10)
_COARSE_TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10)
_WIDE = 3.0
"""If the highest ratio divided by the lowest is at least this, the finer ticks would overlap."""
_SPREAD = 0.6
"""Share of a row's height, for the dots of several specs."""
_UNCLEAR = "#888888"


def draw(ablation: Ablation, kind: str) -> bytes:
    """Every cell's throughput, and every effect next to it."""
    figure = _figure(11.0, len(ablation.cells))
    cells, effects = figure.subplots(1, 2, width_ratios=(1.0, 1.1))
    _draw_cells(cells, ablation)
    _draw_effects(effects, [ablation])
    figure.suptitle(f"{ablation.name} on {ablation.environment.device.name}, {ablation.rounds} rounds", fontsize=11)
    return _saved(figure, kind)


def draw_overview(ablations: Sequence[Ablation], kind: str) -> bytes:
    """The effects of several specs in one panel."""
    rows = len(_names(ablations))
    figure = _figure(8.0, rows * (1 + 0.35 * (len(ablations) - 1)))
    panel = figure.subplots()
    _draw_effects(panel, ablations)
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=min(len(ablations), 4), frameon=False)
    return _saved(figure, kind)


def _draw_cells(panel: Axes, ablation: Ablation) -> None:
    for row, cell in enumerate(ablation.cells):
        if cell.samples_per_s is None:
            panel.text(0.02, row, str(cell.status), transform=panel.get_yaxis_transform(), va="center", color=_UNCLEAR)
            continue
        _dot(panel, cell.samples_per_s, cell.samples_per_s_ci95, row, _COLOURS[0] if cell.on else "black", "o")
    panel.set_xlim(left=0)
    panel.set(xlabel="samples/s, 95 % interval", title="cells")
    _name_rows(panel, [" + ".join(cell.on) or "plain" for cell in ablation.cells])


def _draw_effects(panel: Axes, ablations: Sequence[Ablation]) -> None:
    names = _names(ablations)
    drawn: list[Ratio] = []
    for number, ablation in enumerate(ablations):
        effects = {name_of(effect): effect for effect in ablation.effects}
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        panel.plot([], [], color=colour, marker=marker, linestyle="none", label=ablation.name)
        for row, name in enumerate(names):
            place = row + _SPREAD * ((number + 0.5) / len(ablations) - 0.5)
            found = effects[name].throughput if name in effects else None
            if found is None:
                _say_missing(panel, effects.get(name), place)
                continue
            drawn.append(found)
            _dot(panel, found.ratio, found.ci95, place, colour, marker, filled=found.is_clear)
    panel.axvline(1, color="black", linewidth=0.8)
    _ratio_axis(panel, drawn)
    together = sum(len(ablation.effects) for ablation in ablations[:1])
    panel.set(xlabel=f"× throughput, 95 % ({together} at once); hollow: unclear", title="effects")
    _name_rows(panel, names)
    mains = sum("×" not in name for name in names)
    panel.axhline(mains - 0.5, color=_UNCLEAR, linewidth=0.5, linestyle=":")


def _dot(
    panel: Axes,
    value: float,
    ends: tuple[float, float] | None,
    row: float,
    colour: str,
    marker: str,
    *,
    filled: bool = True,
) -> None:
    if ends:
        panel.plot(ends, (row, row), color=colour, linewidth=1.6, solid_capstyle="butt")
    panel.plot([value], [row], marker=marker, markersize=6, color=colour, markerfacecolor=colour if filled else "white")


def _say_missing(panel: Axes, effect: Effect | None, row: float) -> None:
    if effect is not None:
        panel.text(
            0.02,
            row,
            "needs a cell that failed",
            transform=panel.get_yaxis_transform(),
            va="center",
            fontsize=8,
            color=_UNCLEAR,
        )


def _ratio_axis(panel: Axes, drawn: Iterable[Ratio]) -> None:
    ends = [end for ratio in drawn for end in (ratio.ratio, *(ratio.ci95 or ()))]
    low, high = min([*ends, 0.9]) / 1.04, max([*ends, 1.1]) * 1.04
    ticks = [tick for tick in (_COARSE_TICKS if high / low > _WIDE else _TICKS) if low <= tick <= high]
    panel.set_xscale("log")
    panel.set_xlim(low, high)
    panel.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])
    panel.minorticks_off()


def _name_rows(panel: Axes, names: Sequence[str]) -> None:
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.grid(axis="x", linewidth=0.4, alpha=0.5)
    panel.tick_params(axis="y", length=0)
    panel.spines[["top", "right", "left"]].set_visible(False)


def _names(ablations: Sequence[Ablation]) -> list[str]:
    """Main effects first, then interactions, of all specs."""
    names = {name_of(effect): len(effect.techniques) for ablation in ablations for effect in ablation.effects}
    return sorted(names, key=lambda name: names[name])


def _figure(width: float, rows: float) -> Figure:
    from matplotlib.figure import Figure  # half a second that only plots need to spend

    return Figure(figsize=(width, _FRAME_INCHES + _ROW_INCHES * rows), layout="constrained")


def _saved(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=120, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()
