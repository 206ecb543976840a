"""The next action of a study: a pure function of the study so far and of where the session stands."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.search.decide.actions import Action
from autotune.search.decide.conclude import conclude
from autotune.search.decide.confirm import after_its_trial, in_round, run_tests
from autotune.search.decide.explore import explore
from autotune.search.decide.session import Concluding, Exploring, InRound, Session, Step, Testing, Trying
from autotune.search.decide.study import StudySoFar
from autotune.search.decide.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Decision:
    action: Action
    session: Session
    """As it stands when the action has been done."""
    stands: Verdict | None
    """What is emitted if the session ends before it; None: what it was before."""


def decide(study: StudySoFar, session: Session) -> Decision:
    """Raises NoStableConfiguration where the baseline has no measurement, or does not learn."""
    stands = None
    while True:
        step = _step(study, session)
        session, stands = step.session, step.stands or stands
        if step.action is not None:
            return Decision(action=step.action, session=session, stands=stands)


def _step(study: StudySoFar, session: Session) -> Step:
    match session.stage:
        case Exploring() as stage:
            return explore(study, session, stage)
        case InRound() as stage:
            return in_round(study, session, stage)
        case Trying() as stage:
            return after_its_trial(study, session, stage)
        case Testing() as stage:
            return run_tests(study, session, stage)
        case Concluding() as stage:
            return conclude(study, session.fitted_anew(study), stage)
