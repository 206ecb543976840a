"""Terminal output: what is being measured, and the results."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.status import Status
from rich.table import Table
from rich.text import Text

from autotune.ablation import tables
from autotune.ablation.analyse import Analysis
from autotune.ablation.design import Design
from autotune.ablation.rounds import Rounds
from autotune.ablation.tables import Rows
from autotune.records import Ablation
from autotune.report import words
from autotune.spec.ablation import FEWEST_ROUNDS
from autotune.spec.durations import format_duration

_REFRESH_PER_S = 2.0
"""Low, because drawing takes CPU time from the run that is being measured."""


class Screen:
    """A line for each spec and each round; on a terminal, the run in progress as well."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet
        self._name, self._rounds = "", 0
        live = console.is_terminal and not quiet
        self._status = Status("", console=console, refresh_per_second=_REFRESH_PER_S) if live else None

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def begins(self, name: str) -> None:
        self._name, self._rounds = name, 0
        self._say(f"{name}: starting PyTorch and looking at the workload …")

    def on_design(self, design: Design) -> None:
        levels = " × ".join(
            f"{factor.knob} {words.setting(factor.off)}/{words.setting(factor.on)}" for factor in design.factors
        )
        size = design.effective_batch_size
        self._say(f"{self._name}: {len(design.configs)} cells, {levels}, effective batch {size} in all of them")
        for dropped in design.dropped:
            self._say(f"{self._name}: left out: {dropped}")

    def on_run(self, rounds: Rounds) -> None:
        left = format_duration(max(round(rounds.remaining_s), 0))
        if self._status is not None:
            self._status.update(Text(f"{self._name}: {len(rounds.records)} runs, {left} left"))
        if rounds.complete > self._rounds:
            self._rounds = rounds.complete
            effects = Analysis(rounds.design, rounds.records).effects()
            standing = tables.main_effects(effects, intervals=self._rounds >= FEWEST_ROUNDS)
            self._say(f"{self._name}: round {self._rounds}, {left} left: {standing}")

    def _say(self, line: str) -> None:
        if not self._quiet:
            self._console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)


def view(ablation: Ablation) -> RenderableType:
    """One spec: the answer, every cell, the effects, and the notes."""
    parts: list[RenderableType] = [
        Text(tables.headline(ablation), style="bold"),
        Text(f"{tables.caption(ablation)}\n", style="dim"),
        _table(tables.short_cell_rows(ablation)),
        Text(),
        _table(tables.short_effect_rows(ablation)),
        Text(tables.reading(ablation), style="dim"),
    ]
    parts += [Text(f"not tested: {line}") for line in ablation.dropped]
    parts += [Text(f"note: {line}") for line in ablation.notes]
    return Group(*parts, Text())


def overview_view(ablations: Sequence[Ablation]) -> RenderableType:
    """Several specs: their effects side by side."""
    return _table(tables.overview_rows(ablations), wrap=True)


def _table(rows: Rows, *, wrap: bool = False) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column, heading in enumerate(rows.headings):
        table.add_column(heading, justify="left" if column < rows.left else "right", no_wrap=not wrap)
    for row in rows.rows:
        table.add_row(*map(Text, row))
    return table
