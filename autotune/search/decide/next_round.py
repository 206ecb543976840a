"""Who runs in the next round of the confirmation: a pure function of what the rounds so far have shown.

A round is worth its time for two questions. Which of the finalists is the best: a finalist runs as long as emitting the
leader in its place may cost something. And how much faster than the baseline that is: the baseline runs in each round
until the answer is clear, then in every other one, for the figures are stated beside its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autotune.config import TrainConfig
from autotune.search.policy import FULL_ROUNDS, SHARE_OF_BASELINE

Seconds = Callable[[Sequence[TrainConfig]], float]
"""What a round of these will take."""


@dataclass(frozen=True, kw_only=True)
class RoundsSoFar:
    """What decides about the next round."""

    baseline: TrainConfig
    leader: TrainConfig | None
    """The one that would be emitted now; None before the first round."""
    finalists: Sequence[TrainConfig]
    """Likely best first; the leader among them."""
    rounds: Mapping[TrainConfig, int]
    """With a measurement in common with the baseline's; the baseline's own."""
    runs: Mapping[TrainConfig, int]
    at_stake: Mapping[TrainConfig, float]
    """Mean loss in ln(throughput) by emitting the leader where this finalist may be faster."""
    least_at_stake: float
    """`LITTLE` or `NEXT_TO_NOTHING`."""
    is_clear: bool
    """Whether the leader is known to be faster than the baseline and about how much, or not to be faster."""

    def racing(self) -> list[TrainConfig]:
        """The finalists that continue; all of them until they have had their rounds."""
        if self.leader is None:
            return list(self.finalists)
        late = [each for each in self.finalists if self.rounds[each] < FULL_ROUNDS]
        if late:  # added by now: beside the leader, until they have had theirs
            return [self.leader, *(each for each in late if each != self.leader)]
        return [each for each in self.finalists if each == self.leader or self.at_stake[each] > self.least_at_stake]

    def needs_baseline(self, racing: Sequence[TrainConfig]) -> bool:
        few = any(self.rounds[each] < FULL_ROUNDS for each in racing)
        if few or not self.is_clear or self.leader is None:
            return True
        return self.rounds[self.leader] < SHARE_OF_BASELINE * self.runs[self.leader]


def next_round(so_far: RoundsSoFar, seconds_left: float, round_s: Seconds) -> list[TrainConfig]:
    """Those with most to tell for whom there is time; nobody when not even two fit.

    The first rounds are of all only if the leader's own comparison with the baseline can be ended after them.
    """
    leader, baseline = so_far.leader or next(iter(so_far.finalists), None), so_far.baseline
    if leader is None:
        return [baseline] if round_s([baseline]) <= seconds_left else []
    racing = so_far.racing()
    first = [baseline] if so_far.needs_baseline(racing) else []
    duel = [baseline, leader] if first else [leader, *_closest(so_far, racing)]
    to_come = max(FULL_ROUNDS - so_far.rounds[leader] - 1, 0)
    full = [*first, *racing]
    fits = round_s(full) + to_come * round_s(duel) <= seconds_left
    return full if fits else duel if round_s(duel) <= seconds_left else []


def _closest(so_far: RoundsSoFar, racing: Sequence[TrainConfig]) -> list[TrainConfig]:
    rivals = [each for each in racing if each != so_far.leader]
    return sorted(rivals, key=lambda each: -so_far.at_stake[each])[:1]
