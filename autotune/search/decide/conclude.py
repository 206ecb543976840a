"""What happens after the rounds: emit the best configuration that is clearly faster and passes every gate and the soak,
else the baseline. If the baseline does not meet the spec's constraints, emit the best that does and passes, however
slow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from autotune.config import TrainConfig
from autotune.records import Check, TrialResult
from autotune.search.decide.actions import Soak, Stop
from autotune.search.decide.checks import soak_checks
from autotune.search.decide.confirming import Confirming
from autotune.search.decide.judging import (
    agreement,
    baseline_stands,
    before_its_soak,
    checks_before_soak,
    compared_by_its_soak,
    provisional,
    verdict,
)
from autotune.search.decide.session import Concluding, Exploring, Session, Step
from autotune.search.decide.soak import soak_of
from autotune.search.decide.study import StudySoFar
from autotune.search.decide.watched import Watched, is_sound
from autotune.search.gates import SOAK
from autotune.stats import FEWEST_ROUNDS, Outcome


def conclude(study: StudySoFar, session: Session, stage: Concluding) -> Step:
    """One decision: a run of the tests, the soak, the exclusion of a finalist, or the verdict."""
    confirming = session.confirming(study)
    if stage.testing is not None:
        return _test(study, session, stage, stage.testing)
    if confirming.rounds(confirming.baseline) < FEWEST_ROUNDS:  # one says nothing about the spread
        return Step(session=session, action=Stop(provisional(study)))
    leader = confirming.leader
    if leader is None:
        return _baseline_stands(study, session, stage)
    if is_to_be_tested(confirming, leader):
        return _test(study, session, stage, leader)
    config = emitted_instead(confirming, leader)
    if confirming.is_worthwhile(config):
        return _soak(study, session, stage, config)
    # Only of the best of those that stand: whatever ranks below it has shown less.
    closest = stage.closest or (config, confirming.speedup(config))
    return Step(session=session.with_finalists(confirming.finalists.rejecting(config)).at(Concluding(closest=closest)))


def _soak(study: StudySoFar, session: Session, stage: Concluding, config: TrainConfig) -> Step:
    confirming, soaked = session.confirming(study), soak_of(study, config)
    if isinstance(soaked, Soak):
        return Step(session=session, action=soaked)
    checks, refusing = judged(confirming, config, soaked)
    if refusing:
        session = session.with_finalists(confirming.finalists.without_soaked(study, config, refusing))
        confirming = session.confirming(study)
        if any(confirming.rounds(each) < FEWEST_ROUNDS for each in confirming.finalists.now):  # they have yet to run
            session = session.at(Exploring.of(study))
        stands = before_its_soak(confirming) or baseline_stands(confirming, stage.closest)
        return Step(session=session, stands=stands)
    if is_to_be_tested_late(confirming, config):
        return _test(study, session, stage, config)
    checks = [*checks_before_soak(confirming, config), *checks]
    return Step(session=session, action=Stop(verdict(confirming, config, checks, soaked=soaked)))


def _baseline_stands(study: StudySoFar, session: Session, stage: Concluding) -> Step:
    """The baseline is emitted. It gets a soak like any other: a fault after two hundred steps matters here too."""
    confirming, soaked = session.confirming(study), soak_of(study, study.baseline)
    stands = baseline_stands(confirming, stage.closest, None if isinstance(soaked, Soak) else soaked)
    if isinstance(soaked, Soak):
        return Step(session=session, action=soaked, stands=stands)
    return Step(session=session, action=Stop(stands))


def is_to_be_tested(confirming: Confirming, config: TrainConfig) -> bool:
    """Whether the leader gets its tests now, because the rounds have ended before they ran."""
    if confirming.is_tested(config) or not confirming.is_worthwhile(config):
        return False
    has_time = confirming.timetable.tests_and_soak_s(config) <= confirming.study.budget.remaining_s
    return has_time and Watched(confirming.study).next_run(config) is not None


def is_to_be_tested_late(confirming: Confirming, config: TrainConfig) -> bool:
    """Whether tests that had no time run in what the soak has left. Nothing else can use that time, so half of what the
    tests may take is enough."""
    if confirming.is_tested(config):
        return False
    has_time = confirming.timetable.tests_s([config]) <= 2 * confirming.study.budget.remaining_s
    return has_time and Watched(confirming.study).next_run(config) is not None


def _test(study: StudySoFar, session: Session, stage: Concluding, config: TrainConfig) -> Step:
    """The remaining tests of `config`, as far as time allows."""
    run = Watched(study).next_run(config)
    testing = dataclasses.replace(stage, testing=config if run else None)
    if run is not None:
        return Step(session=session.at(testing), action=run)
    finalists = session.confirming(study).without_if_unstable(config)
    return Step(session=session.with_finalists(finalists).at(testing))


def emitted_instead(confirming: Confirming, leader: TrainConfig) -> TrainConfig:
    """The leader; or, if the budget ended before its tests, a tested configuration that is also faster than the
    baseline."""
    second = None if confirming.is_tested(leader) else confirming.tested_leader
    return second if second and confirming.is_worthwhile(second) else leader


def judged(
    confirming: Confirming, config: TrainConfig, soaked: TrialResult | None
) -> tuple[list[Check], Sequence[Check]]:
    """The soak's checks, and those of them that refuse `config`. A soak that contradicts the rounds does not refuse it
    if `config` is faster than the baseline by the soak's throughput too."""
    checks = soak_checks(confirming.study, soaked)
    refusing = [check for check in checks if not check.holds and not _is_only_short(check, soaked)] if soaked else []
    if soaked and not refusing:
        agrees = agreement(confirming, config, soaked)
        checks.append(agrees)
        if not agrees.holds and not _is_faster_by_its_soak(confirming, config, soaked):
            refusing = [agrees]
    return checks, refusing


def _is_only_short(check: Check, soaked: TrialResult) -> bool:
    """Whether `check` says no more than that the budget ended before the soak did: no fault of the configuration."""
    return check.name == SOAK and is_sound(soaked)


def _is_faster_by_its_soak(confirming: Confirming, config: TrainConfig, soaked: TrialResult) -> bool:
    """Whether it is clearly faster than the baseline by its soak too, or the baseline may not be emitted."""
    found = compared_by_its_soak(confirming, config, soaked)
    return found.outcome is Outcome.FASTER or not confirming.baseline_may_stand
