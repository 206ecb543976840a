"""Calculates results from the runs: each comparison within a round, then its mean and interval over the rounds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from autotune.ablation.design import Design
from autotune.ablation.rounds import figures_of
from autotune.records import CellFigures, Effect, LossWindow, Ratio, Together, TrialRecord, TrialStatus
from autotune.search.figures import is_ok, measurement_of, samples_per_s
from autotune.stats import Cell, Estimate, contrast, effects, mean_interval

_WINDOW_SHARE = 0.25
"""Share of the steps that all runs reached: in the last quarter, differences of single batches average out."""

Round = Mapping[Cell, TrialRecord]
Value = Callable[[TrialRecord], float]


class Analysis:
    """The results of one ablation, from its records."""

    def __init__(self, design: Design, records: Sequence[TrialRecord]) -> None:
        self._design = design
        self._records = records
        self._rounds: list[Round] = [found for _, found in sorted(figures_of(list(records), design).items())]
        self._steps = _steps_reached(self._rounds)

    @property
    def rounds(self) -> int:
        """Rounds in which every cell that works has a measurement."""
        seen = {cell for found in self._rounds for cell in found}
        return sum(seen == found.keys() for found in self._rounds)

    def cells(self) -> tuple[CellFigures, ...]:
        return tuple(map(self._cell, self._design.configs))

    def effects(self) -> tuple[Effect, ...]:
        return tuple(self._effect(chosen) for chosen in effects(len(self._design.factors)))

    def together(self) -> Together | None:
        """All techniques at once, compared with the product of their single effects."""
        plain, full = self._design.plain, self._design.full
        alone = [cell for cell in self._design.configs if sum(cell) == 1]
        rounds = self._rounds_with({plain, full, *alone})
        if len(alone) < 2 or not rounds:
            return None
        whole = [_log_rate(found[full]) - _log_rate(found[plain]) for found in rounds]
        parts = [math.fsum(_log_rate(found[cell]) - _log_rate(found[plain]) for cell in alone) for found in rounds]
        beyond = [one - other for one, other in zip(whole, parts, strict=True)]
        # Three intervals that are compared with each other.
        throughput, product, rest = (_ratio(mean_interval(values, together=3)) for values in (whole, parts, beyond))
        return Together(throughput=throughput, product=product, beyond=rest)

    def disturbed_share(self) -> float:
        """Share of the timed blocks during which the machine was busy with other work, or throttled."""
        blocks = [block for found in self._rounds for record in found.values() for block in record.result.blocks]
        return sum(bool(block.disturbances) for block in blocks) / len(blocks) if blocks else 0.0

    def loss_window(self) -> LossWindow | None:
        """The samples whose losses are compared; None before any run."""
        runs = [record for found in self._rounds for record in found.values()]
        if not self._steps or not runs or runs[0].result.steps is None:
            return None
        counts = runs[0].result.steps.samples
        start = self._window().start
        return LossWindow(first_sample=sum(counts[:start]) + 1, last_sample=sum(counts[: self._steps]))

    def _cell(self, cell: Cell) -> CellFigures:
        config = self._design.configs[cell]
        own = [record for record in self._records if record.result.config == config and not record.cut_short]
        runs = [found[cell] for found in self._rounds if cell in found]
        failed = Counter(_why_failed(record) for record in own if not is_ok(record))
        status = next((record.result.status for record in reversed(own) if not is_ok(record)), TrialStatus.OK)
        described: dict[str, Any] = {
            "on": self._design.techniques(cell),
            "config": config,
            "status": TrialStatus.OK if runs else status,
            "runs": len(runs),
            "failures": tuple(
                reason if count == 1 else f"{reason} ({count} times)" for reason, count in failed.items()
            ),
        }
        return CellFigures(**described, **(self._measured(cell, runs) if runs else {}))

    def _measured(self, cell: Cell, runs: Sequence[TrialRecord]) -> dict[str, Any]:
        rate = mean_interval([_log_rate(record) for record in runs]).exp()
        waits = [measurement_of(record.result).data_wait_fraction for record in runs]
        difference = self._against_plain(cell, self._loss)
        return {
            "samples_per_s": rate.value,
            "samples_per_s_ci95": _ends(rate),
            "ratio": _as_ratio(self._against_plain(cell, _log_rate)),
            "peak_memory_bytes": max(map(_peak_bytes, runs)),
            "memory_ratio": _as_ratio(self._against_plain(cell, _log_memory)),
            "data_wait_fraction": math.fsum(waits) / len(waits),
            "loss": math.fsum(map(self._loss, runs)) / len(runs) if self._steps else None,
            "loss_difference": difference.value if difference else None,
            "loss_difference_ci95": _ends(difference) if difference else None,
        }

    def _against_plain(self, cell: Cell, value: Value) -> Estimate | None:
        """Difference of `value` from the plain cell's, round by round; None for the plain cell itself, or if it has no
        measurement."""
        plain = self._design.plain
        rounds = self._rounds_with({cell, plain})
        if cell == plain or not rounds:
            return None
        differences = [value(found[cell]) - value(found[plain]) for found in rounds]
        return _finite(mean_interval(differences, together=len(self._design.configs) - 1))

    def _effect(self, chosen: tuple[int, ...]) -> Effect:
        techniques = tuple(self._design.factors[number].label for number in chosen)
        rounds = self._rounds_with(self._design.configs)
        if not rounds:
            return Effect(techniques=techniques, unavailable=self._what_is_missing())
        return Effect(
            techniques=techniques,
            throughput=_as_ratio(self._contrast(rounds, chosen, _log_rate)),
            memory=_as_ratio(self._contrast(rounds, chosen, _log_memory)),
        )

    def _contrast(self, rounds: Iterable[Round], chosen: tuple[int, ...], value: Value) -> Estimate | None:
        values = [contrast({cell: value(record) for cell, record in found.items()}, chosen) for found in rounds]
        return _finite(mean_interval(values, together=len(self._design.configs) - 1))

    def _what_is_missing(self) -> str:
        """Why there is no round with all cells."""
        failed = [cell for cell in self._design.configs if not any(cell in found for found in self._rounds)]
        if not failed:
            return "no complete round"
        return f"needs {', '.join(map(self._design.name, failed))}, without a measurement"

    def _rounds_with(self, cells: Iterable[Cell]) -> list[Round]:
        wanted = set(cells)
        return [found for found in self._rounds if wanted <= found.keys()]

    def _window(self) -> slice:
        return slice(self._steps - max(round(_WINDOW_SHARE * self._steps), 1), self._steps)

    def _loss(self, record: TrialRecord) -> float:
        losses = record.result.steps.losses[self._window()] if record.result.steps else []
        return math.fsum(losses) / len(losses) if losses else math.nan


def _steps_reached(rounds: Iterable[Round]) -> int:
    """Optimizer steps of the shortest run; all cells have the same effective batch size, so the same samples."""
    steps = (record.result.steps for found in rounds for record in found.values())
    return min((len(run.losses) if run else 0 for run in steps), default=0)


def _why_failed(record: TrialRecord) -> str:
    failure = record.result.failure
    return f"{record.result.status}: {failure.reason}" if failure else str(record.result.status)


def _log_rate(record: TrialRecord) -> float:
    return math.log(samples_per_s(record))


def _peak_bytes(record: TrialRecord) -> int:
    return record.result.memory.peak_bytes if record.result.memory else 0


def _log_memory(record: TrialRecord) -> float:
    peak = _peak_bytes(record)
    return math.log(peak) if peak > 0 else math.nan


def _finite(estimate: Estimate) -> Estimate | None:
    return estimate if math.isfinite(estimate.value) else None  # a peak of zero has no logarithm


def _as_ratio(log_ratio: Estimate | None) -> Ratio | None:
    return None if log_ratio is None else _ratio(log_ratio)


def _ratio(log_ratio: Estimate) -> Ratio:
    ratio = log_ratio.exp()
    return Ratio(ratio=ratio.value, ci95=_ends(ratio))


def _ends(estimate: Estimate) -> tuple[float, float] | None:
    return (estimate.interval.low, estimate.interval.high) if estimate.interval else None
