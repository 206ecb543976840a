"""The results as rows of text, the same for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from autotune.records import Ablation, CellFigures, Effect, Ratio, TrialStatus
from autotune.report import words

NOTHING = "–"


class Rows(NamedTuple):
    """A table: headings, and rows with one text per heading; the first `left` columns are text, the others numbers."""

    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    left: int


def cell_rows(ablation: Ablation) -> Rows:
    """Every combination: its levels, throughput, memory, and its loss after the same samples."""
    techniques = tuple(factor.label for factor in ablation.factors)
    figures = ("samples/s", "95 %", "× plain", "95 %", "peak memory", "loss", "to plain", "95 %")
    rows = [(*_levels(ablation, cell), *_cell(cell)) for cell in ablation.cells]
    return Rows((*techniques, *figures), rows, left=len(techniques))


def effect_rows(ablation: Ablation) -> Rows:
    """The effect of each technique, averaged over the others, and their interactions."""
    headings = ("effect", "in words", "throughput", "95 %", "peak memory", "95 %")
    rows = [
        (
            name_of(effect),
            in_words(effect),
            *_ratio(effect.throughput),
            *_ratio(effect.memory),
        )
        for effect in ablation.effects
    ]
    return Rows(headings, rows, left=2)


def short_cell_rows(ablation: Ablation) -> Rows:
    """Like `cell_rows`, for the width of a terminal."""
    rows = []
    for cell in ablation.cells:
        rate, _, ratio, interval, memory, loss, *_ = _cell(cell)
        rows.append((" + ".join(cell.on) or "plain", rate, ratio, interval, memory, loss))
    return Rows(("cell", "samples/s", "× plain", "95 %", "memory", "loss"), rows, left=1)


def short_effect_rows(ablation: Ablation) -> Rows:
    """Like `effect_rows`, only for throughput."""
    whole = effect_rows(ablation)
    return Rows(whole.headings[:4], [row[:4] for row in whole.rows], left=whole.left)


def overview_rows(ablations: Sequence[Ablation]) -> Rows:
    """Effects on throughput, one column per spec."""
    names = list(dict.fromkeys(name_of(effect) for ablation in ablations for effect in ablation.effects))
    found = [{name_of(effect): effect.throughput for effect in ablation.effects} for ablation in ablations]
    rows: list[tuple[str, ...]] = [(name, *(_with_interval(effects.get(name)) for effects in found)) for name in names]
    together = [ablation.together for ablation in ablations]
    if any(together):
        rows.append(
            ("all together, relative to plain", *(_with_interval(one.throughput if one else None) for one in together))
        )
        rows.append(
            ("the product of the single effects", *(_with_interval(one.product if one else None) for one in together))
        )
    plain = (ablation.plain.samples_per_s for ablation in ablations)
    rows.append(("plain, samples/s", *(words.rate(speed) if speed else NOTHING for speed in plain)))
    return Rows(("effect on throughput", *(ablation.name for ablation in ablations)), rows, left=1)


def headline(ablation: Ablation) -> str:
    """The answer in a sentence."""
    together = ablation.together
    if together is None:
        return f"{ablation.name}: {main_effects(ablation.effects)}"
    all_of_them = " + ".join(factor.label for factor in ablation.factors)
    return (
        f"{ablation.name}: {all_of_them} together {_with_interval(together.throughput)} the plain throughput; "
        f"the product of the single effects is {_with_interval(together.product)}"
    )


def main_effects(effects: Sequence[Effect], *, intervals: bool = True) -> str:
    """The effect of each technique, on one line."""
    alone = (effect for effect in effects if len(effect.techniques) == 1)
    shown = _with_interval if intervals else lambda found: _ratio(found)[0]
    return ", ".join(f"{name_of(effect)} {shown(effect.throughput)}" for effect in alone)


def caption(ablation: Ablation) -> str:
    """What the cells have in common, and how they were measured."""
    device = ablation.environment.device.name
    window = ablation.loss_window
    losses = f", losses over samples {window.first_sample:,} to {window.last_sample:,} of each run" if window else ""
    rounds = "1 round" if ablation.rounds == 1 else f"{ablation.rounds} rounds"
    return (
        f"{rounds}, {ablation.processes} processes on {device}; effective batch "
        f"{ablation.effective_batch_size} in every cell{losses}"
    )


def reading(ablation: Ablation) -> str:
    """How to read the effects."""
    count = len(ablation.effects)
    return (
        "The effect of a technique is the throughput with it divided by that without it, averaged over all settings of "
        "the others. An interaction (×) is the joint effect of techniques, divided by the product of their single "
        f"effects. All {count} intervals of a model hold at once with 95 % (Bonferroni), and so do those of its cells."
    )


def name_of(effect: Effect) -> str:
    return " × ".join(effect.techniques)


def in_words(effect: Effect) -> str:
    if effect.unavailable:
        return effect.unavailable
    found = effect.throughput
    if found is None or not found.is_clear:
        return "no clear effect" if len(effect.techniques) == 1 else "no clear interaction"
    if len(effect.techniques) == 1:
        return "faster" if found.ratio > 1 else "slower"
    return "more than the parts" if found.ratio > 1 else "less than the parts"


def _levels(ablation: Ablation, cell: CellFigures) -> tuple[str, ...]:
    return tuple(words.setting(factor.on if factor.label in cell.on else factor.off) for factor in ablation.factors)


def _cell(cell: CellFigures) -> tuple[str, ...]:
    if cell.samples_per_s is None:
        return (NOTHING if cell.status is TrialStatus.OK else str(cell.status), *[NOTHING] * 7)
    ends = cell.samples_per_s_ci95
    interval = f"{words.rate(ends[0])} to {words.rate(ends[1])}" if ends else NOTHING
    ratio = _ratio(cell.ratio) if cell.on else ("1", "")
    return (
        words.rate(cell.samples_per_s),
        interval,
        *ratio,
        words.memory(cell.peak_memory_bytes or 0),
        NOTHING if cell.loss is None else f"{cell.loss:.3f}",
        *(_loss_difference(cell) if cell.on else ("0", "")),
    )


def _loss_difference(cell: CellFigures) -> tuple[str, str]:
    ends = cell.loss_difference_ci95
    value = NOTHING if cell.loss_difference is None else f"{cell.loss_difference:+.3f}"
    return value, f"{ends[0]:+.3f} to {ends[1]:+.3f}" if ends else NOTHING


def _ratio(found: Ratio | None) -> tuple[str, str]:
    if found is None:
        return NOTHING, NOTHING
    return f"{found.ratio:.2f}×", words.interval(found.ci95) if found.ci95 else NOTHING


def _with_interval(found: Ratio | None) -> str:
    if found is None:
        return NOTHING
    return f"{found.ratio:.2f}×" + (f" ({words.interval(found.ci95)})" if found.ci95 else "")
