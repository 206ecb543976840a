"""The wall-clock budget of the whole command: what is spent, what is left, and what each phase may take."""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], float]

CONFIRM_SHARE = 0.35
"""For the three best and the baseline again, in alternation, and for the stability tests and the soak of the winner."""
MOST_FOR_CONFIRMING = 0.6
"""Where steps are so slow that the share would not do; a search needs the rest."""
EMIT_RESERVE_S = 1.0
"""For writing the result and ending the processes after the last run."""

_TRIAL_SHARE = 0.03
_SHORTEST_TRIAL_S, _LONGEST_TRIAL_S = 1.5, 20.0
_COMPILE_ALLOWANCE_S = 180.0
TESTS_SHARE = 0.15
"""For the stability tests' reference runs and probes together, starts included."""
_USUAL_WATCHED_RUNS, _MOST_WATCHED_RUNS = 4, 6
"""A probe with three references and with five. Where it follows the first of them, two runs are all."""
_GOOD_STEPS = 20
"""Five for each window of losses; more where the most runs would still fit into the share."""
_ENOUGH_STEPS, _ENOUGH_SHARE = 12, 0.03
_FEWEST_STEPS, _FEWEST_SHARE = 6, 0.05
"""Three for each of four windows, and of two, without which nothing can be compared; with the share of the budget that
a run may train for, so that it comes to as many, however long its start takes."""
_LEAST_SHARE = 0.01
"""Of the budget: it adds little to a start that takes as long."""


class Budget:
    """Counts from the beginning of the command, on top of what earlier sessions of the same study have spent."""

    def __init__(self, total_s: float, clock: Clock, *, began_s: float | None = None, use_all: bool = False) -> None:
        """`began_s`: when the command began, on `clock`; None: now. `use_all`: whether time in which nothing more is
        to be expected is spent all the same."""
        self.total_s = total_s
        self.use_all = use_all
        self._clock = clock
        self._began_s = clock() if began_s is None else began_s
        self._spent_before_s = 0.0
        self._confirm_s = total_s * CONFIRM_SHARE

    def carry_over(self, spent_before_s: float) -> None:
        """What earlier sessions have spent, known only once their records are read."""
        self._spent_before_s = spent_before_s

    @property
    def elapsed_s(self) -> float:
        return self._spent_before_s + self._clock() - self._began_s

    @property
    def remaining_s(self) -> float:
        """Until the last process has to be gone."""
        return self.total_s - EMIT_RESERVE_S - self.elapsed_s

    def reserve_for_confirming(self, needed_s: float) -> None:
        """Keep `needed_s` for the end, within bounds; never less than its share."""
        self._confirm_s = self.total_s * min(max(needed_s / self.total_s, CONFIRM_SHARE), MOST_FOR_CONFIRMING)

    @property
    def search_remaining_s(self) -> float:
        return self.total_s - self._confirm_s - self.elapsed_s

    @property
    def trial_s(self) -> float:
        """Warm-up and timed steps of one search trial; enough of them fit for a model of the space."""
        return min(max(self.total_s * _TRIAL_SHARE, _SHORTEST_TRIAL_S), _LONGEST_TRIAL_S)

    @property
    def tests_s(self) -> float:
        return self.total_s * TESTS_SHARE

    def watched_run_s(self, start_s: float, step_s: float) -> float:
        """Training time of a run whose losses are compared; in it the number of steps that the spec asks, or fewer.

        `start_s`: of a run up to the end of its first step; `step_s`: of an optimizer step of it, by estimate.
        """
        return max(
            _LEAST_SHARE * self.total_s,
            self.tests_s / _MOST_WATCHED_RUNS - start_s,
            min(_GOOD_STEPS * step_s, self.tests_s / _USUAL_WATCHED_RUNS - start_s),
            min(_ENOUGH_STEPS * step_s, _ENOUGH_SHARE * self.total_s),
            min(_FEWEST_STEPS * step_s, _FEWEST_SHARE * self.total_s),
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


def patience_s(trial_s: float, *, baseline_wall_s: float, compiles: bool) -> float:
    """How long a search trial of `trial_s` may take: as long as the baseline, with much to spare, and compile."""
    return 2 * baseline_wall_s + 3 * trial_s + (_COMPILE_ALLOWANCE_S if compiles else 0.0)
