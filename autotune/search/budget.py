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
_REFERENCE_SHARE = 0.03
"""Of each of the stability tests' reference runs and probes, of which there are four."""


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
    def reference_run_s(self) -> float:
        """Training time of a run whose losses are compared; in it the number of steps that the spec asks, or fewer."""
        return self.total_s * _REFERENCE_SHARE

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
