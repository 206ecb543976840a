"""The wall-clock budget of the whole command: what is spent, what is left, and what each phase may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autotune.search.policy import (
    COMPILE_ALLOWANCE_S,
    CONFIRM_SHARE,
    EMIT_RESERVE_S,
    ENOUGH_SHARE,
    ENOUGH_STEPS,
    GOOD_STEPS,
    LEAST_SHARE,
    LEAST_STEPS,
    LEAST_STEPS_SHARE,
    LONGEST_TRIAL_S,
    MOST_FOR_CONFIRMING,
    MOST_WATCHED_RUNS,
    SHORTEST_TRIAL_S,
    TESTS_SHARE,
    TRIAL_SHARE,
    USUAL_WATCHED_RUNS,
)

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class BudgetNow:
    """The budget at one moment."""

    total_s: float
    elapsed_s: float = 0.0
    confirm_share: float = CONFIRM_SHARE
    """What is kept for the end, as a share of the whole."""
    use_all: bool = False
    """Whether time in which nothing more is to be expected is spent all the same."""
    between_runs_s: float = 0.0
    """Seconds that passed between runs, to decide: seconds instead of tenths beside other work. The shorter of the last
    two pauses, because one long one says little of the next."""

    @property
    def remaining_s(self) -> float:
        """Until the last process has to be gone. Another run is decided on before, and the result after it."""
        return self.total_s - EMIT_RESERVE_S - 2 * self.between_runs_s - self.elapsed_s

    @property
    def search_remaining_s(self) -> float:
        return self.total_s - self.total_s * self.confirm_share - self.elapsed_s

    @property
    def trial_s(self) -> float:
        """Warm-up and timed steps of one search trial; enough of them fit for a model of the space."""
        return min(max(self.total_s * TRIAL_SHARE, SHORTEST_TRIAL_S), LONGEST_TRIAL_S)

    @property
    def tests_s(self) -> float:
        return self.total_s * TESTS_SHARE

    def watched_run_s(self, start_s: float, step_s: float) -> float:
        """Training time of a run whose losses are compared; in it the number of steps that the spec asks, or fewer.

        `start_s`: of a run up to the end of its first step; `step_s`: of an optimizer step of it, by estimate.
        """
        return max(
            LEAST_SHARE * self.total_s,
            self.tests_s / MOST_WATCHED_RUNS - start_s,
            min(GOOD_STEPS * step_s, self.tests_s / USUAL_WATCHED_RUNS - start_s),
            min(ENOUGH_STEPS * step_s, ENOUGH_SHARE * self.total_s),
            min(LEAST_STEPS * step_s, LEAST_STEPS_SHARE * self.total_s),
        )

    def baseline_deadline_s(self) -> float:
        """Half of the search: a baseline that takes longer leaves no time to find anything better."""
        return max(min(self.total_s * (1 - CONFIRM_SHARE) / 2, self.remaining_s), 0.0)

    def patience_s(self, baseline_wall_s: float, *, compiles: bool) -> float:
        return patience_s(self.trial_s, baseline_wall_s=baseline_wall_s, compiles=compiles)

    def trial_deadline_s(self, patience_s: float) -> float:
        """When a search trial is killed: with its patience, or soon after the search's end.

        One that began in time may run a little into the confirmation: better than to lose it in its last block.
        """
        return max(min(patience_s, self.search_remaining_s + self.trial_s, self.remaining_s), 0.0)


class Budget:
    """Counts from the beginning of the command, on top of what earlier sessions of the same study have spent."""

    def __init__(self, total_s: float, clock: Clock, *, began_s: float | None = None, use_all: bool = False) -> None:
        """`began_s`: when the command began, on `clock`; None: now. `use_all`: as of `BudgetNow`."""
        self.total_s = total_s
        self.use_all = use_all
        self._clock = clock
        self._began_s = clock() if began_s is None else began_s
        self._spent_before_s: float | None = None
        self._is_over = False
        self._confirm_share = CONFIRM_SHARE
        self._pauses_s = (0.0, 0.0)

    def carry_over(self, spent_before_s: float) -> None:
        """What earlier sessions have spent, known only once their records are read. The first time counts: a session
        that opens its study again has spent the rest itself."""
        if self._spent_before_s is None:
            self._spent_before_s = spent_before_s

    def end(self) -> None:
        """What is left is too little for anything."""
        self._is_over = True

    def note_between_runs(self, seconds: float) -> None:
        self._pauses_s = self._pauses_s[1], seconds

    def reserve_for_confirming(self, needed_s: float) -> None:
        """Keep `needed_s` for the end, within bounds; never less than its share."""
        self._confirm_share = min(max(needed_s / self.total_s, CONFIRM_SHARE), MOST_FOR_CONFIRMING)

    @property
    def now(self) -> BudgetNow:
        return BudgetNow(
            total_s=self.total_s,
            elapsed_s=max(self.elapsed_s, self.total_s) if self._is_over else self.elapsed_s,
            confirm_share=self._confirm_share,
            use_all=self.use_all,
            between_runs_s=min(self._pauses_s),
        )

    @property
    def elapsed_s(self) -> float:
        return (self._spent_before_s or 0.0) + self._clock() - self._began_s

    @property
    def remaining_s(self) -> float:
        return self.now.remaining_s

    @property
    def search_remaining_s(self) -> float:
        return self.now.search_remaining_s


def patience_s(trial_s: float, *, baseline_wall_s: float, compiles: bool) -> float:
    """How long a search trial of `trial_s` may take: as long as the baseline, with much to spare, and compile."""
    return 2 * baseline_wall_s + 3 * trial_s + (COMPILE_ALLOWANCE_S if compiles else 0.0)
