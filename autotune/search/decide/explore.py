"""The search's share of the budget: trials until its time is over, the whole space is measured, or no trial is worth
it. On several devices, as many trials run at once."""

from __future__ import annotations

import dataclasses
import statistics

from autotune.config import TrainConfig
from autotune.errors import EnvironmentFailure, NoStableConfiguration
from autotune.records import Purpose, TrialRecord, TrialRequest, TrialResult, TrialStatus
from autotune.search.decide.actions import Measure, Repeat, Trial, Wait
from autotune.search.decide.confirm import begin_round
from autotune.search.decide.confirming import begin_confirming
from autotune.search.decide.finalists import choose_finalists
from autotune.search.decide.judging import provisional
from autotune.search.decide.measured_rounds import MeasuredRounds, batches_without_slow
from autotune.search.decide.rounds import last_round
from autotune.search.decide.session import Confirmation, Exploring, Session, Step
from autotune.search.decide.study import StudySoFar
from autotune.search.decide.timetable import Timetable
from autotune.search.earning import by_model, doubting, simplest, still_simpler
from autotune.search.figures import confirming_request, is_ok
from autotune.search.gates import loss_rise
from autotune.search.performance.sides import Aside
from autotune.search.policy import (
    EVEN,
    FOR_REPEAT,
    KNOWN_TO,
    LAST_TRIALS,
    OF_FIXED_COST,
    PATIENCE,
    PATIENCE_S,
    REPEAT_OF_TRIAL,
    SHORTEST_RUN_S,
    SHORTEST_SIDE_S,
    SHORTEST_TRIAL_S,
    SIDE_SHARES,
    SMALLEST_USEFUL_TRIAL_S,
)
from autotune.search.racing import hopeless_below, restart_spread
from autotune.search.smaller_baseline import BaselineTooLarge, smaller
from autotune.spec.durations import format_duration, usual_duration

_OF_A_BASELINE = 4
"""Budget over what passes before the baseline begins: half of the search is the baseline's, and a third confirms."""


def explore(study: StudySoFar, session: Session, stage: Exploring) -> Step:
    """The baseline, the expert's seeds and the strategy's proposals; then the rounds.

    Called again between the rounds: if they show that runs differ more than expected, more trials may be worth it.
    Raises NoStableConfiguration if the baseline has no measurement or does not learn, BaselineTooLarge if a smaller
    baseline may have one.
    """
    best = study.eligible[0].number if study.eligible else None
    stands = provisional(study) if best != stage.best else None
    session = session.at(dataclasses.replace(stage, best=best))
    if study.baseline_trial is None:
        return _measure_baseline(study, session, stage)
    require_learning(study.baseline_trial)
    repeat = baseline_again(study)
    if repeat is not None:
        return Step(session=session, action=repeat, stands=stands)
    measure = next_trial(study, session)
    if measure is not None:
        return Step(session=_having_begun(study, session, measure), action=measure, stands=stands)
    if study.in_flight:
        return Step(session=session, action=Wait(), stands=stands)
    over = begin_round(study, _with_finalists(study, session, stage))
    return dataclasses.replace(over, stands=over.stands or stands)


def next_trial(study: StudySoFar, session: Session) -> Measure | None:
    """The next trial. None if there is no free slot, no time, or nothing worth a trial."""
    if not study.has_room or study.exhausted:
        return None
    if study.budget.search_remaining_s <= _start_up_s(study) + SMALLEST_USEFUL_TRIAL_S or not _has_time(study):
        return None
    if not study.nothing_worth_trying:
        is_last = _is_near_its_end(study)
        return Measure(
            planned=last_trial(study, session) if is_last else None,
            or_side=study.one_at_a_time and not is_last,
        )
    planned = last_trial(study, session) if session.last_trials < LAST_TRIALS else None
    return Measure(planned=planned) if planned else None


def last_trial(study: StudySoFar, session: Session) -> TrainConfig | None:
    """One of the last trials: the best so far, without the settings that neither the trials nor the model are sure to
    gain 1 % from. None if that is not new. The result of one decides what the next one is."""
    if not study.eligible:
        return None
    best, expected = study.eligible[0].result.config, by_model(study.model)
    tried = {record.result.config for record in study.records if record.purpose is not Purpose.SIDE}
    known = {*session.planned, *tried}
    if study.model.noise <= EVEN:
        return still_simpler(best, lambda config: config not in known, study.space, expected)
    config = simplest(best, study.space, doubting(expected))
    return None if config in {*study.seeds, *known} else config


def search_trial(study: StudySoFar, config: TrainConfig) -> Trial:
    """The search trial of `config`, if it begins now."""
    if study.baseline_trial is None:
        return Trial(
            purpose=Purpose.BASELINE,
            request=_request(study, config, study.budget.trial_s),
            deadline_s=study.budget.baseline_deadline_s(),
        )
    length_s, known = trial_length(study)
    limit_s = min(length_s, study.budget.search_remaining_s - _start_up_s(study))
    patience_s = _patience_s(study, config)
    return Trial(
        purpose=Purpose.SEED if config in study.seeds else Purpose.SEARCH,
        request=_request(study, config, limit_s, known),
        deadline_s=study.budget.trial_deadline_s(patience_s),
        patience_s=patience_s,
    )


def side_alone(study: StudySoFar, aside: Aside) -> Trial:
    """The run that measures one side of a configuration."""
    patience_s = _patience_s(study, aside.config)
    length_s = max(SIDE_SHARES[aside.side] * study.budget.trial_s, SHORTEST_SIDE_S)
    limit_s = min(length_s, study.budget.search_remaining_s - _start_up_s(study))
    seed = study.spec.training.seed
    return Trial(
        purpose=Purpose.SIDE,
        request=TrialRequest(
            config=aside.config,
            seed=seed,
            time_limit_s=limit_s,
            in_any_process=True,
            waits_s=study.waits_s,
            side=aside.side,
        ),
        deadline_s=study.budget.trial_deadline_s(patience_s),
        patience_s=patience_s,
    )


def baseline_again(study: StudySoFar) -> Repeat | None:
    """The baseline's second run, after its trial, unless it costs too much. Whether runs differ by 1 % or by 10 %
    decides how long trials should be."""
    limit_s = max(REPEAT_OF_TRIAL * study.budget.trial_s, SHORTEST_RUN_S)
    expected_s = study.costs.run_s(study.baseline, limit_s)
    most_s = min(FOR_REPEAT * study.budget.total_s, study.budget.search_remaining_s)
    begun = [record for record in study.records if record.purpose is not Purpose.BASELINE or is_ok(record)]
    if len(begun) > 1 or expected_s > most_s:
        return None
    patience_s = PATIENCE * expected_s + PATIENCE_S
    return Repeat(
        request=confirming_request(study.baseline, study.spec.training.seed, limit_s, in_any_process=True),
        deadline_s=min(patience_s, study.budget.search_remaining_s),
        patience_s=patience_s,
    )


def trial_length(study: StudySoFar) -> tuple[float, float]:
    """Training seconds of the next trial, and the relative standard error at which it may end earlier. A trial is no
    longer than is useful, if it is known how much two runs of one configuration differ."""
    measured, usual_s = MeasuredRounds(study, ()), study.budget.trial_s
    repeated = measured.repeated()
    if not repeated:
        return usual_s, KNOWN_TO
    least_s = max(SHORTEST_TRIAL_S, OF_FIXED_COST * study.costs.fixed_s(repeated))
    best_s = measured.best_run_s(repeated, cautious=True)
    return min(max(best_s, least_s), usual_s), measured.well_enough(repeated)


def needed_for_confirming_s(study: StudySoFar) -> float:
    """Seconds that the rounds, the tests and the soak would take, by what is known now."""
    return Timetable(study).needed_s(choose_finalists(study.measured, study.baseline, study.constraints))


def require_learning(baseline: TrialRecord) -> None:
    """Raise if the baseline diverges: none of our settings can fix that, and no budget should be spent on it."""
    rise = loss_rise(baseline.result)
    if not rise.passed:
        raise NoStableConfiguration(
            f"the loss rises with the baseline settings, {rise.detail}; lower training.optimizer.lr, or fix the "
            f"loss. Record: trials/{baseline.number:04d}.json"
        )


def _measure_baseline(study: StudySoFar, session: Session, stage: Exploring) -> Step:
    if study.in_flight:
        return Step(session=session, action=Wait())
    if stage.baseline_after is None:
        if study.budget.baseline_deadline_s() < SMALLEST_USEFUL_TRIAL_S:
            spent = f"the budget of {format_duration(study.budget.total_s)} ended"
            took = f"after {study.budget.elapsed_s:.0f} s it left nothing for a trial"
            enough = usual_duration(_OF_A_BASELINE * study.budget.elapsed_s)
            raise NoStableConfiguration(f"{spent} before the baseline was measured: {took}; use at least {enough}")
        begun = dataclasses.replace(stage, baseline_after=len(study.records))
        return Step(session=session.at(begun), action=Measure())
    if len(study.records) == stage.baseline_after:
        raise EnvironmentFailure("the machine was lost during the baseline's trial; run the same command again")
    last = study.records[-1]
    is_too_large = last.result.status is TrialStatus.OOM and smaller(study.baseline) is not None
    failure = BaselineTooLarge if is_too_large else NoStableConfiguration
    raise failure(_why_no_baseline(last, study.budget.total_s))


def _having_begun(study: StudySoFar, session: Session, measure: Measure) -> Session:
    if measure.planned is None:
        return session
    last_trials = session.last_trials + study.nothing_worth_trying
    return dataclasses.replace(session, planned=(*session.planned, measure.planned), last_trials=last_trials)


def _with_finalists(study: StudySoFar, session: Session, stage: Exploring) -> Session:
    """The finalists after further trials, which may be others. The rounds so far count."""
    if session.confirmation is not None and len(study.measured) <= stage.since:
        return session
    expected = by_model(study.model)
    confirmation = Confirmation(
        finalists=begin_confirming(study, expected), expected=expected, expected_at=last_round(study)
    )
    return dataclasses.replace(session, confirmation=confirmation)


def _request(study: StudySoFar, config: TrainConfig, limit_s: float, known: float = KNOWN_TO) -> TrialRequest:
    """A request with the same weights and sample order as all trials of the search. It ends early once it can no longer
    win."""
    fastest = study.eligible[:1]
    floor = hopeless_below(fastest[0], restart_spread(study.records)) if fastest else None
    seed = study.spec.training.seed
    return TrialRequest(
        config=config,
        seed=seed,
        time_limit_s=limit_s,
        target_relative_error=known,
        hopeless_below=floor,
        waits_s=study.waits_s,
        in_any_process=True,
        # Where runs differ much, a run that ends as soon as that is known tells too little.
        batches_without_slow=batches_without_slow(study.records) if known <= KNOWN_TO else 0,
    )


def _patience_s(study: StudySoFar, config: TrainConfig) -> float:
    baseline_s = study.baseline_trial.result.wall_s if study.baseline_trial else 0.0
    return study.budget.patience_s(baseline_s, compiles=config.compile != "none")


def _has_time(study: StudySoFar) -> bool:
    """Whether another trial would come to a measurement before it is killed, by what the fastest so far takes; where
    that is the baseline alone, others may be many times faster, and it has to come through its first step."""
    measured = [record.result.config for record in study.measured] or [study.baseline]
    costs, fastest = study.costs, measured[0]
    needed_s = costs.run_s(fastest, SMALLEST_USEFUL_TRIAL_S) if len(set(measured)) > 1 else costs.start_s(fastest)
    return needed_s <= study.budget.trial_deadline_s(_patience_s(study, study.baseline))


def _is_near_its_end(study: StudySoFar) -> bool:
    walls = [record.result.wall_s for record in study.measured]
    return bool(walls) and study.budget.search_remaining_s <= LAST_TRIALS * statistics.median(walls)


def _start_up_s(study: StudySoFar) -> float:
    baseline = study.baseline_trial
    return baseline.result.start_up_s or 0.0 if baseline else 0.0


def _was_disturbed(result: TrialResult) -> bool:
    return any(block.disturbances for block in result.blocks)


def _why_no_baseline(record: TrialRecord, budget_s: float) -> str:
    result = record.result
    reason = result.failure.reason if result.failure else "no timed block"
    where = f"Record: trials/{record.number:04d}.json"
    if result.status is TrialStatus.TIMEOUT:
        busy = " Other programs used the CPU cores or the device meanwhile." if _was_disturbed(result) else ""
        return (
            f"the first trial, with the baseline settings, was not done after {result.wall_s:.0f} s, which is what the "
            f"budget of {format_duration(budget_s)} left it.{busy} Use at least {usual_duration(2 * budget_s)}. {where}"
        )
    advice = {
        "oom": "not even one sample fits into memory; give a smaller model, or smaller samples",
        "diverged": "lower training.optimizer.lr, or fix the model: training does not survive its first steps",
    }.get(result.status, "fix the model, data or loss")
    return f"your training code fails with the baseline settings{result.status.bracketed}: {reason}; {advice}. {where}"
