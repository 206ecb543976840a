"""What a session remembers of its own decisions, in addition to the records."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

from autotune.config import TrainConfig
from autotune.search.decide.actions import Action
from autotune.search.decide.confirming import Confirming
from autotune.search.decide.finalists import Finalists
from autotune.search.decide.rounds import last_round
from autotune.search.decide.study import StudySoFar
from autotune.search.decide.verdict import Closest, Verdict
from autotune.search.earning import Compare, by_model


@dataclass(frozen=True, kw_only=True)
class Exploring:
    """The search's trials run."""

    since: int
    """Trials with a measurement when it began."""
    best: int | None
    """Number of the fastest trial when that was last looked at."""
    baseline_after: int | None = None
    """Records before the baseline's run, once that has begun."""

    @classmethod
    def of(cls, study: StudySoFar) -> Exploring:
        return cls(since=len(study.measured), best=study.eligible[0].number if study.eligible else None)


@dataclass(frozen=True, kw_only=True)
class InRound:
    """A round is running."""

    number: int
    order: tuple[TrainConfig, ...]
    limit_s: float
    """Training seconds of each run."""
    place: int = 0
    """In `order`, of the configuration whose turn it is."""
    tries: int = 0
    """Runs of it that have ended."""


@dataclass(frozen=True)
class Trying:
    """A simpler form of the leader has its search trial."""

    config: TrainConfig


@dataclass(frozen=True)
class Testing:
    """The leader has its stability tests, between rounds."""

    config: TrainConfig


@dataclass(frozen=True, kw_only=True)
class Concluding:
    """The rounds are over."""

    closest: Closest | None = None
    testing: TrainConfig | None = None


Stage = Exploring | InRound | Trying | Testing | Concluding


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """The confirmation of the present finalists."""

    finalists: Finalists
    expected: Compare = field(repr=False)
    """By the model, fitted in round `expected_at` or after it."""
    expected_at: int


@dataclass(frozen=True, kw_only=True)
class Session:
    """Where the session is."""

    stage: Stage
    confirmation: Confirmation | None = None
    """None before the first round."""
    given_s: float = math.inf
    """Training seconds of the runs of the last round; of an earlier session nobody knows."""
    planned: tuple[TrainConfig, ...] = ()
    """Trials that were not the strategy's proposals."""
    last_trials: int = 0
    """Trials of the best without settings that may gain nothing, after the strategy has no trial left to propose."""

    def at(self, stage: Stage) -> Session:
        return dataclasses.replace(self, stage=stage)

    def with_finalists(self, finalists: Finalists) -> Session:
        return dataclasses.replace(self, confirmation=dataclasses.replace(self._begun, finalists=finalists))

    def is_outdated(self, study: StudySoFar) -> bool:
        """Whether a round has begun since the model was fitted."""
        return self._begun.expected_at != last_round(study)

    def fitted_anew(self, study: StudySoFar) -> Session:
        """The session with the model's present expectations, if its own are outdated."""
        if not self.is_outdated(study):
            return self
        fresh = dataclasses.replace(self._begun, expected=by_model(study.model), expected_at=last_round(study))
        return dataclasses.replace(self, confirmation=fresh)

    def confirming(self, study: StudySoFar) -> Confirming:
        """The present confirmation. Needs finalists."""
        finalists, expected = self._begun.finalists, self._begun.expected
        return study.once(
            (finalists, expected), lambda: Confirming(study=study, finalists=finalists, expected=expected)
        )

    @property
    def _begun(self) -> Confirmation:
        if self.confirmation is None:
            raise RuntimeError("nothing is confirmed before there are finalists")
        return self.confirmation


@dataclass(frozen=True, kw_only=True)
class Step:
    """The result of one rule."""

    session: Session
    action: Action | None = None
    """None: the rules of the stage that the session is at now say more."""
    stands: Verdict | None = None
    """What is emitted if the session is interrupted now; None: what it was before."""
