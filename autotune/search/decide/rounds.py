"""The next round of the confirmation: whether there is one, who runs in it, and each of its runs.

Finalists drop out as soon as they are very likely not the best. Whether few long runs or many short ones tell more
depends on the machine, and is calculated anew after each round from what the runs have shown of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from autotune.config import TrainConfig
from autotune.records import Purpose
from autotune.search.decide.actions import Confirm
from autotune.search.decide.confirming import Confirming
from autotune.search.decide.measured_rounds import ACCURACY, batches_without_slow, slow_batches
from autotune.search.decide.next_round import RoundsSoFar, Seconds, next_round
from autotune.search.decide.study import StudySoFar
from autotune.search.figures import confirming_request
from autotune.search.gates import known_speedup
from autotune.search.policy import (
    CONFIRM_SHARE,
    EVEN,
    FULL_ROUNDS,
    LITTLE,
    MOST_ROUNDS,
    NEXT_TO_NOTHING,
    PATIENCE,
    PATIENCE_S,
    PRECISE,
    TRUE_TO,
)


def last_round(study: StudySoFar) -> int:
    """The last round that has begun."""
    return max((record.round or 0 for record in study.of_purpose(Purpose.CONFIRM)), default=0)


def racing(confirming: Confirming, given_s: float) -> list[TrainConfig]:
    """Who runs the next round. Empty if there is no time for it or the answer is clear.

    `given_s`: training seconds of the runs of the round before.
    """
    round_s = partial(confirming.timetable.round_s, limit_s=confirming.run_limit_s, given_s=given_s)
    chosen = next_round(rounds_so_far(confirming, round_s), confirming.for_rounds_s, round_s)
    return [] if is_decided(confirming, chosen) else chosen


def rounds_so_far(confirming: Confirming, round_s: Seconds) -> RoundsSoFar:
    leader, finalists, measured = confirming.leader, confirming.finalists.now, confirming.measured
    if confirming.needs_all_time:
        finalists = finalists[:1] if leader is None else (leader,)
    known = [confirming.baseline, *finalists]

    def at_stake(other: TrainConfig) -> float:
        if leader is None:
            return math.inf
        return 0.0 if other == leader else measured.expected_loss(leader, other)

    return RoundsSoFar(
        baseline=confirming.baseline,
        leader=leader,
        finalists=finalists,
        rounds={config: confirming.rounds(config) for config in known},
        runs={config: len(confirming.runs(config)) for config in known},
        at_stake={config: at_stake(config) for config in finalists},
        least_at_stake=LITTLE if leader and _is_known_in_time(confirming, leader, round_s) else NEXT_TO_NOTHING,
        is_clear=leader is not None and _is_clear(confirming, leader),
    )


def is_decided(confirming: Confirming, racing: Sequence[TrainConfig]) -> bool:
    """Whether the leader is clearly faster than the baseline, or clearly not, and clearly the best or as good as any
    that a next round would compare it with, and its throughput is known well.

    `racing`: who would run the next round.
    """
    leader = confirming.leader or confirming.baseline
    runs = len(confirming.runs(leader))
    if runs >= MOST_ROUNDS or runs < FULL_ROUNDS:
        return runs >= MOST_ROUNDS
    if not all(_is_settled(confirming, leader, rival) for rival in racing if rival != leader):
        return False
    wanted = TRUE_TO if has_had_its_share(confirming.study) else PRECISE
    return confirming.measured.doubt(leader, soaked=_is_to_be_soaked(confirming, leader)) <= wanted


def _is_clear(confirming: Confirming, leader: TrainConfig) -> bool:
    """Whether `leader` is known to be faster than the baseline and about how much, or not to be faster."""
    decided = confirming.measured.is_decided(leader, confirming.baseline)
    return decided and known_speedup(confirming.speedup(leader)).passed


def _is_to_be_soaked(confirming: Confirming, leader: TrainConfig) -> bool:
    """Whether a soak is to come that will count as one more run of the leader. Where the loader is the limit, a soak,
    which trains on what is queued, knows its figure less well than a run of a round does."""
    is_to_come = leader != confirming.baseline and confirming.study.spec.stability.soak_steps > 0
    return is_to_come and confirming.measured.accuracy(leader) <= ACCURACY


def has_had_its_share(study: StudySoFar) -> bool:
    """Whether the confirmation has taken as long as is usual after such a search. A search that ended early leaves more
    time: for what must become clear, not to make clear results clearer."""
    of_search = (Purpose.REPEAT, Purpose.SIDE)
    runs = [
        record.result.wall_s
        for record in study.records
        if record.optuna_trial is None and record.purpose not in of_search
    ]
    return not study.budget.use_all and math.fsum(runs) > CONFIRM_SHARE * study.budget.elapsed_s


def confirming_run(
    confirming: Confirming, config: TrainConfig, number: int, limit_s: float, *, in_any_process: bool = True
) -> Confirm | None:
    """One run of round `number`; None where there is no time for it. One that takes longer than it should have does
    not take the time of the tests and the soak."""
    study, measured, limit_s = confirming.study, confirming.measured, confirming.seconds_of(config, limit_s)
    expected_s, left_s = study.costs.run_s(config, limit_s), confirming.for_rounds_s
    if left_s < expected_s:
        return None
    request = confirming_request(
        config,
        study.spec.training.seed + number,
        limit_s,
        measured.well_known,
        in_any_process=in_any_process,
        waits_s=min(study.waits_s, left_s - expected_s),
        data_was_read=measured.data_was_read,
        slow_batches=slow_batches(study.records, config),
        batches_without_slow=batches_without_slow(study.records) if confirming.finalists.model.noise <= EVEN else 0,
    )
    patience_s = PATIENCE * expected_s + PATIENCE_S
    return Confirm(request=request, deadline_s=min(patience_s, left_s), patience_s=patience_s, round=number)


def _is_known_in_time(confirming: Confirming, leader: TrainConfig, round_s: Seconds) -> bool:
    """Whether runs of it alone can still measure its throughput well."""
    runs = len(confirming.runs(leader))
    doubt = confirming.measured.doubt(leader) if runs else math.inf
    more = runs * ((doubt / TRUE_TO) ** 2 - 1)  # it falls with the root of their number
    return math.isinf(doubt) or more * round_s([leader]) <= confirming.for_rounds_s


def _is_settled(confirming: Confirming, leader: TrainConfig, rival: TrainConfig) -> bool:
    """Whether one of the two is clearly faster, or they are alike; or, if neither is the baseline, whether it hardly
    matters which one is emitted."""
    if rival == confirming.baseline:
        return _is_clear(confirming, leader)
    if confirming.measured.is_decided(leader, rival):
        return True
    matters = leader == confirming.baseline or confirming.study.budget.use_all
    return not matters and confirming.measured.expected_loss(leader, rival) < LITTLE
