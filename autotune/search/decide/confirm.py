"""The share of the budget for the confirmation: rounds over the finalists and the baseline, and what follows from each.

After each round three questions are answered: who is out, whether to measure a simpler form of the leader, and whether
the leader's stability tests are due. They run early, so that another finalist can take its place in time. Then the
search may continue.
"""

from __future__ import annotations

import dataclasses
import random

from autotune.config import TrainConfig
from autotune.records import TrialRequest
from autotune.search.decide.actions import Confirm, Try
from autotune.search.decide.confirming import Confirming
from autotune.search.decide.finalists import Finalists
from autotune.search.decide.judging import before_its_soak
from autotune.search.decide.rounds import confirming_run, has_had_its_share, last_round, racing
from autotune.search.decide.session import Concluding, Exploring, InRound, Session, Step, Testing, Trying
from autotune.search.decide.study import StudySoFar
from autotune.search.decide.watched import Watched
from autotune.search.earning import is_part, still_simpler
from autotune.search.figures import is_ok
from autotune.search.policy import FULL_ROUNDS, PATIENCE, PATIENCE_S
from autotune.stats import rests_on_disturbed


def begin_round(study: StudySoFar, session: Session) -> Step:
    """Begin another round, until the answer is clear or only the soak's time is left."""
    session = session.fitted_anew(study)
    confirming = session.confirming(study)
    runners = racing(confirming, session.given_s)
    if not runners:
        return _conclude(study, session)
    number, limit_s = last_round(study) + 1, confirming.run_limit_s
    order = random.Random(f"{study.spec.training.seed} {number}").sample(runners, len(runners))
    stage = InRound(number=number, order=tuple(order), limit_s=limit_s)
    return Step(session=dataclasses.replace(session, stage=stage, given_s=limit_s))


def in_round(study: StudySoFar, session: Session, stage: InRound) -> Step:
    """Run each configuration of the round once, as long as there is time. Run it again if other work disturbed all that
    it measured and the machine is usually free: the disturbance may be over."""
    confirming = session.confirming(study)
    if len(confirming.passing) > 1 and session.is_outdated(study):  # from now on they are compared
        session = session.fitted_anew(study)
        confirming = session.confirming(study)
    run = _run_of(confirming, stage)
    if run is not None:
        return Step(session=session.at(dataclasses.replace(stage, tries=stage.tries + 1)), action=run)
    if not stage.tries:  # a first run may take longer than rounds usually leave it
        return after_round(study, session) if stage.place else _conclude(study, session)
    session = session.with_finalists(without_failed(confirming, stage.order[stage.place]))
    if stage.place + 1 == len(stage.order):
        return after_round(study, session)
    return Step(session=session.at(dataclasses.replace(stage, place=stage.place + 1, tries=0)))


def after_round(study: StudySoFar, session: Session) -> Step:
    session = session.fitted_anew(study)
    session = session.with_finalists(without_violators(session.confirming(study)).with_left_out(study))
    confirming = session.confirming(study)
    simple = simpler_finalist(confirming, session.given_s)
    if simple is not None and simple not in study.tried:
        planned = dataclasses.replace(session, stage=Trying(simple), planned=(*session.planned, simple))
        return Step(session=planned, action=trial_of(confirming, simple))
    if simple is not None:
        session = session.with_finalists(confirming.finalists.adding(simple))
    return _begin_tests(study, session)


def after_its_trial(study: StudySoFar, session: Session, stage: Trying) -> Step:
    """Continue after a trial. A trial that another session ran instead has left no record here."""
    ended = study.records[-1]
    if ended.optuna_trial is not None and is_ok(ended):
        session = session.with_finalists(session.confirming(study).finalists.adding(stage.config))
    return _begin_tests(study, session)


def run_tests(study: StudySoFar, session: Session, stage: Testing) -> Step:
    """Run the tests as far as time allows. If one fails, the next finalist takes the place."""
    run = Watched(study).next_run(stage.config)
    if run is not None:
        return Step(session=session, action=run)
    finalists = session.confirming(study).without_if_unstable(stage.config)
    return Step(session=session.with_finalists(finalists).at(Exploring.of(study)))


def without_failed(confirming: Confirming, config: TrainConfig) -> Finalists:
    """The finalists without `config`, if its last run failed through its own fault."""
    ended, finalists = confirming.study.records[-1], confirming.finalists
    has_failed = not is_ok(ended) and not ended.cut_short and config in finalists.now
    return finalists.without_failed(confirming.study, config) if has_failed else finalists


def without_violators(confirming: Confirming) -> Finalists:
    """The finalists without those that violate a constraint in all their rounds. They cannot win, however fast."""
    finalists = confirming.finalists
    for config in finalists.now:
        violated = [check for check in confirming.constraint_checks(config) if not check.holds]
        if violated and confirming.rounds(config) >= FULL_ROUNDS:
            finalists = finalists.refusing(confirming.study, config, violated)
    return finalists


def simpler_finalist(confirming: Confirming, given_s: float) -> TrainConfig | None:
    """One more finalist, if there is time: the leader without settings that are not known to gain 1 %.

    `given_s`: training seconds of the runs of the last round.
    """
    leader, study = confirming.leader, confirming.study
    if leader is None or confirming.rounds(leader) < FULL_ROUNDS or has_had_its_share(study):
        return None
    simple = still_simpler(
        leader, lambda config: confirming.finalists.may_join(study, config), study.space, confirming.gain
    )
    if simple is None:
        return None
    limit_s = confirming.run_limit_s
    rounds_s = FULL_ROUNDS * confirming.timetable.round_s([study.baseline, leader, simple], limit_s, given_s)
    trial_s = 0.0 if simple in study.tried else study.costs.run_s(simple, limit_s)
    return simple if trial_s + rounds_s < confirming.for_rounds_s else None


def trial_of(confirming: Confirming, config: TrainConfig) -> Try:
    """The search trial of a configuration that the search has not tried. It is as long as a confirming run."""
    study, limit_s = confirming.study, confirming.run_limit_s
    patience_s = PATIENCE * study.costs.run_s(config, limit_s) + PATIENCE_S
    return Try(
        request=TrialRequest(
            config=config,
            seed=study.spec.training.seed,
            time_limit_s=limit_s,
            in_any_process=True,
            waits_s=study.waits_s,
        ),
        deadline_s=min(patience_s, confirming.for_rounds_s),
        patience_s=patience_s,
    )


def to_test(confirming: Confirming) -> TrainConfig | None:
    """The finalist whose stability tests are due: the leader, as soon as it is worth them. Not while a simpler form
    that may replace it has not run yet: there may be no time to test both."""
    leader = confirming.leader
    if leader is None or confirming.rounds(leader) < FULL_ROUNDS or confirming.is_tested(leader):
        return None
    parts = [config for config in confirming.finalists.now if is_part(config, leader, confirming.baseline)]
    if any(confirming.rounds(config) < FULL_ROUNDS for config in parts):
        return None
    has_time = confirming.study.budget.remaining_s >= confirming.timetable.tests_and_soak_s(leader)
    return leader if has_time and confirming.is_worthwhile(leader) else None


def _run_of(confirming: Confirming, stage: InRound) -> Confirm | None:
    """The next run of the configuration whose turn it is. The first run of a round is in a new process."""
    if stage.tries > 1 or (stage.tries == 1 and not _was_disturbed(confirming.study)):
        return None
    return confirming_run(
        confirming,
        stage.order[stage.place],
        stage.number,
        stage.limit_s,
        in_any_process=stage.place + stage.tries > 0,
    )


def _was_disturbed(study: StudySoFar) -> bool:
    return rests_on_disturbed(study.records[-1].result.blocks) and study.is_usually_free


def _begin_tests(study: StudySoFar, session: Session) -> Step:
    config = to_test(session.confirming(study))
    return Step(session=session.at(Testing(config) if config else Exploring.of(study)))


def _conclude(study: StudySoFar, session: Session) -> Step:
    return Step(session=session.at(Concluding()), stands=before_its_soak(session.confirming(study)))
