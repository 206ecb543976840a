"""The rounds: every cell runs once, in random order and in a new process, until the budget is spent.

All cells of a round share one seed: the same weights and the same samples in the same order, so that losses can be
compared as well as speeds.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from autotune.ablation.design import Design
from autotune.execution import Backend
from autotune.records import Facts, Purpose, TrialRecord, TrialRequest, TrialStatus
from autotune.search.budget import Budget, patience_s
from autotune.search.figures import confirming_request, is_ok
from autotune.search.policy import SHORTEST_RUN_S, SPARE
from autotune.spec.ablation import FEWEST_ROUNDS
from autotune.spec.durations import format_duration
from autotune.stats import Cell
from autotune.store import StudyFolder

_PLANNED_ROUNDS = 12
"""The number of new processes determines the precision, until their start-up takes most of the time."""
_LONGEST_RUN_S = 20.0
_START_UP_SHARE = 0.5
"""Share of the first runs' time, before any has shown how long a start takes."""
_FAILURES_TO_GIVE_UP = 2
_PATIENCE_S = 15.0
_CLOSE_ENOUGH = 1.05
"""Planned time of a round, divided by the time left: the last round takes all of it, and planning takes a part."""
_GENEROUS, _ROUNDING_S = 1.2, 30.0
"""Margin and rounding of the budget that is advised."""

OnRun = Callable[["Rounds"], None]


class TooShort(Exception):
    """The budget is too short for the smallest number of rounds; the message says which budget is enough."""


class Rounds:
    """What has been measured, and what is still missing. Every run is kept in the folder's `trials/`."""

    def __init__(
        self,
        design: Design,
        folder: StudyFolder,
        backend: Backend,
        budget: Budget,
        facts: Facts,
        *,
        seed: int,
        most: int | None,
    ) -> None:
        self.design = design
        self._folder = folder
        self._backend = backend
        self._budget = budget
        self._facts = facts
        self._seed = seed
        self._most = most
        self.records = folder.read_trials()
        self._most_beyond_s = 0.0
        """What a run of this call has taken beyond its limit: its start, its last block, and the time that it was given
        back for blocks which other programs disturbed."""
        budget.carry_over(max((record.elapsed_s for record in self.records), default=0.0))

    @property
    def remaining_s(self) -> float:
        return self._budget.remaining_s

    @property
    def figures(self) -> dict[int, dict[Cell, TrialRecord]]:
        """Round → cell → run, of the runs with a measurement."""
        return figures_of(self.records, self.design)

    @property
    def complete(self) -> int:
        """Rounds in which all cells except those that are given up have a measurement."""
        return sum(self._running <= found.keys() for found in self.figures.values())

    def run(self, on_run: OnRun) -> None:
        """Run rounds until the budget is spent, or until the number in the spec is reached. Raises TooShort as soon as
        it is clear that the fewest rounds do not fit."""
        number = max((record.round or 0 for record in self.records), default=0)
        if number and self._missing(number):
            number -= 1  # it was interrupted, and goes on
        while self._running and (self._most is None or self.complete < self._most):
            missing = max(FEWEST_ROUNDS - self.complete, 0)
            if missing * self._round_s(SHORTEST_RUN_S) > self.remaining_s:
                raise TooShort(self._estimate(missing))
            limit_s = self._limit_s()
            if not missing and self._round_s(limit_s) > _CLOSE_ENOUGH * self.remaining_s:
                return
            number += 1
            self._round(number, limit_s, on_run)
        if self._running and self.complete < FEWEST_ROUNDS:
            raise TooShort(self._estimate(FEWEST_ROUNDS - self.complete))

    @property
    def _running(self) -> set[Cell]:
        """All cells except those that are given up because they ran out of memory or failed twice."""
        return {cell for cell in self.design.configs if not self._has_failed(cell)}

    def _has_failed(self, cell: Cell) -> bool:
        runs = [record for record in self.records if record.result.config == self.design.configs[cell]]
        failed = [record.result.status for record in runs if not is_ok(record) and not record.cut_short]
        return TrialStatus.OOM in failed or len(failed) >= _FAILURES_TO_GIVE_UP

    def _round(self, number: int, limit_s: float, on_run: OnRun) -> None:
        cells = self._missing(number)
        for place, cell in enumerate(random.Random(f"{self._seed}-{number}").sample(cells, len(cells))):
            if self.remaining_s <= 0:
                return
            self._measure(cell, number, self._shortened(limit_s, len(cells) - place))
            on_run(self)

    def _shortened(self, limit_s: float, runs: int) -> float:
        """`limit_s`, or less if the last `runs` of a round would not fit into the time left when each exceeds its limit
        as much as the worst run so far: a run that is cut short costs the round."""
        fits_s = self.remaining_s / (SPARE * runs) - self._most_beyond_s
        return max(min(limit_s, fits_s), min(limit_s, SHORTEST_RUN_S))

    def _missing(self, number: int) -> list[Cell]:
        """Cells that have not been tried in that round."""
        tried = {record.result.config for record in self.records if record.round == number and not record.cut_short}
        return sorted(cell for cell in self._running if self.design.configs[cell] not in tried)

    def _measure(self, cell: Cell, number: int, limit_s: float) -> None:
        config = self.design.configs[cell]
        patience = self._patience_s(limit_s, compiles=config.compile != "none")
        deadline_s = min(patience, self.remaining_s)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        request = ablation_request(self.design, cell, self._seed + number, limit_s)
        result = self._backend.run(request, deadline_s=deadline_s, on_event=lambda _event: None)
        if result.status is TrialStatus.OK:
            self._most_beyond_s = max(self._most_beyond_s, result.wall_s - limit_s)
        record = TrialRecord(
            number=max((record.number for record in self.records), default=-1) + 1,
            purpose=Purpose.ABLATE,
            round=number,
            elapsed_s=self._budget.elapsed_s,
            cut_short=result.status is TrialStatus.TIMEOUT and deadline_s < patience,
            started=started,
            result=result,
            environment=self._facts,
        )
        self._folder.write_trial(record)
        self.records.append(record)

    def _limit_s(self) -> float:
        """Training seconds of each run of the next round, so that the planned rounds fill the time left."""
        rounds = max(min(_PLANNED_ROUNDS, self._most or _PLANNED_ROUNDS) - self.complete, 1)
        share_s = self.remaining_s / (SPARE * rounds * len(self._running))
        start_up_s = self._start_up_s() if self.records else _START_UP_SHARE * share_s
        return min(max(share_s - start_up_s, SHORTEST_RUN_S), _LONGEST_RUN_S)

    def _round_s(self, limit_s: float) -> float:
        """Seconds that a round will take: start and training of each cell, longer for cells that were slow before."""
        return SPARE * sum(self._start_up_s() + max(limit_s, self._fewest_steps_s(cell)) for cell in self._running)

    def _start_up_s(self) -> float:
        """Time of one run without its training."""
        return statistics.median(r.result.wall_s - r.result.training_s for r in self.records) if self.records else 0.0

    def _fewest_steps_s(self, cell: Cell) -> float:
        """Seconds of training in the shortest run of `cell`: its first step, two more to warm up, two timed."""
        runs = [record.result for record in self.records if record.result.config == self.design.configs[cell]]
        first_s = max((run.warm_up.first_step_s for run in runs if run.warm_up), default=0.0)
        steps_s = [sum(b.seconds for b in run.blocks) / sum(b.steps for b in run.blocks) for run in runs if run.blocks]
        return first_s + 4 * max(steps_s, default=0.0)

    def _patience_s(self, limit_s: float, *, compiles: bool) -> float:
        """How long a run may take: much longer than any run so far; half of the time left if there was none.

        A cell that is killed is missing in all effects, so the limit allows for delays by other work.
        """
        longest_s = max((record.result.wall_s for record in self.records if is_ok(record)), default=None)
        if longest_s is None:
            return max(self.remaining_s / 2, 0.0)
        return _PATIENCE_S + patience_s(limit_s, baseline_wall_s=longest_s, compiles=compiles)

    def _estimate(self, missing: int) -> str:
        whole_s = self._budget.elapsed_s + _GENEROUS * missing * self._round_s(SHORTEST_RUN_S)
        enough = format_duration(_ROUNDING_S * (whole_s // _ROUNDING_S + 1))
        return (
            f"{FEWEST_ROUNDS} rounds of {len(self._running)} cells do not fit into "
            f"{format_duration(self._budget.total_s)}: they take {'about' if self.records else 'more than'} "
            f"{whole_s:.0f} s here; give {enough} (--budget is divided among the specs), or name fewer factors"
        )


def ablation_request(design: Design, cell: Cell, seed: int, limit_s: float) -> TrialRequest:
    """Like a confirming run, but it always uses its whole time: losses are compared at the point that all runs have
    reached, and are more informative the later that is."""
    return confirming_request(design.configs[cell], seed, limit_s).model_copy(update={"target_relative_error": 0.0})


def figures_of(records: list[TrialRecord], design: Design) -> dict[int, dict[Cell, TrialRecord]]:
    """Round → cell → run, of the runs with a measurement."""
    cells: Mapping[object, Cell] = {config: cell for cell, config in design.configs.items()}
    found: dict[int, dict[Cell, TrialRecord]] = {}
    for record in records:
        if is_ok(record) and record.round is not None:
            found.setdefault(record.round, {})[cells[record.result.config]] = record
    return found
