"""`verify`: whether a study's promise still holds, by running what it emitted against the baseline again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from autotune.config import TrainConfig
from autotune.errors import SpecError
from autotune.execution import StartBackend, start_alone
from autotune.records import Facts, Verification
from autotune.search.budget import Clock
from autotune.search.decide.verdict import STABLE
from autotune.search.duel import Duel, Trials
from autotune.search.emit import environment_of
from autotune.search.identity import differences
from autotune.search.ledger import read_origin
from autotune.stats import TIE, Comparison, Estimate, Interval, Outcome
from autotune.store import StudyFolder, read_spec_to_run, read_study_spec

DEFAULT_BUDGET_S = 60.0
_FEWEST_ROUNDS = 2
_OF_ANOTHER_DAY = 1.1
"""How much slower a whole machine may be than it was, without anything having changed: its clock, its neighbours."""
_UNTOLD = 1.6
"""Rounds that may be this much slower than was promised, for all that they tell, do not say that a promise holds."""
_RESERVE_S = 1.0
"""For ending the processes after the last run."""

OnMessage = Callable[[str], None]


def verify(
    folder: StudyFolder,
    *,
    budget_s: float = DEFAULT_BUDGET_S,
    began_s: float | None = None,
    on_message: OnMessage = lambda _message: None,
    start_backend: StartBackend = start_alone,
    clock: Clock = time.monotonic,
) -> Verification:
    """Alternate fresh runs of the emitted configuration and of the baseline until the answer is clear or the budget is
    spent. The runs are kept in `trials/` beside the study's own; the result of the search stays as it is.

    Raises SpecError where there is no result yet, WorkloadError, StudyMismatch, EnvironmentFailure.
    """
    ends_s = (clock() if began_s is None else began_s) + budget_s - _RESERVE_S
    document = folder.read_best()
    if document is None:
        raise SpecError(f"{folder.path} has no result yet; run the search again")
    spec_json, seed = read_spec_to_run(folder), read_study_spec(folder).training.seed
    folder.open()
    try:
        backend = start_backend(spec_json, read_origin(folder))
        try:
            facts = backend.facts(ends_s - clock())
            emitted = TrainConfig.from_dict(document["config"])
            baseline = TrainConfig.from_dict(document["baseline"]["config"])
            trials = Trials(folder, backend, facts)
            ours = trials.of(emitted, "the result of the study")
            theirs = None if emitted == baseline else trials.of(baseline, "the baseline")
            duel = Duel(ours, theirs, clock=clock, ends_s=ends_s)
            duel.run(seed, lambda: on_message(_standing(duel)))
        finally:
            backend.close()
    finally:
        folder.close()
    return _verification(document, duel, facts)


class Answer(NamedTuple):
    holds: bool
    reason: str
    known: bool = True
    """Whether the runs could tell."""


def judge(document: dict[str, Any], measured: Comparison | None, rate: Estimate | None, rounds: int) -> Answer:
    """Whether the promise in `document` (that of `best.yaml`) holds against what was measured now, and why.

    It is broken when the configuration is not clearly faster than the baseline any more, or when its speed-up is less
    than the promised one beyond what the two intervals allow for. Where the baseline itself was emitted, its throughput
    is the promise.
    """
    if measured is None or rate is None or rounds < _FEWEST_ROUNDS:
        return Answer(False, "the budget was too short for two rounds; give a larger --budget", known=False)
    if document["config"] == document["baseline"]["config"]:
        return _judge_baseline(document["measured"], rate)
    verdicts = {
        Outcome.AMBIGUOUS: "the rounds cannot tell whether it is faster than the baseline; give a larger --budget",
        Outcome.TIE: "it is no faster than the baseline",
        Outcome.SLOWER: "it is slower than the baseline",
    }
    if measured.outcome in verdicts:
        return Answer(False, verdicts[measured.outcome], known=measured.outcome is not Outcome.AMBIGUOUS)
    promised = _estimate(document["speedup"]["ratio"], document["speedup"]["ci95"])
    if _is_less(measured.ratio, promised, by=TIE):
        return Answer(False, "it is faster than the baseline, but by less than the search measured")
    return Answer(True, "it is as much faster than the baseline as the search measured")


def _judge_baseline(figures: dict[str, Any], rate: Estimate) -> Answer:
    """There is no ratio that the machine's speed of the day would cancel out of, so that is allowed for."""
    promised = _estimate(figures["samples_per_s"], figures["samples_per_s_ci95"])
    if _is_less(rate, promised, by=_OF_ANOTHER_DAY):
        return Answer(False, "the search kept the baseline, which is slower now than the search measured")
    if _low(rate) * _UNTOLD < promised.value:
        return Answer(False, "the rounds cannot tell how fast the baseline is; give a larger --budget", known=False)
    return Answer(True, "the search kept the baseline, which is as fast as the search measured")


def _is_less(now: Estimate, promised: Estimate, *, by: float) -> bool:
    """Whether `now` is less than what was promised by more than `by` times, beyond doubt: by the 95 % interval of the
    ratio of the two."""
    if min(now.value, _low(promised)) <= 0:
        return False
    doubt = math.hypot(math.log(promised.value / _low(promised)), math.log(_high(now) / now.value))
    return math.log(promised.value / now.value) - math.log(by) > doubt


def _verification(document: dict[str, Any], duel: Duel, facts: Facts) -> Verification:
    measured, rate = duel.comparison(), duel.samples_per_s()
    answer = Answer(False, duel.failure) if duel.failure else judge(document, measured, rate, duel.rounds)
    promised = document["stability"]["verdict"] == STABLE
    return Verification(
        study=document["study"],
        holds=answer.holds,
        reason=answer.reason,
        known=answer.known,
        promised=promised,
        promised_ratio=document["speedup"]["ratio"],
        promised_ratio_ci95=document["speedup"]["ci95"],
        promised_samples_per_s=document["measured"]["samples_per_s"],
        ratio=measured.ratio.value if measured else None,
        ratio_ci95=_ends(measured.ratio) if measured else None,
        outcome=str(measured.outcome) if measured else None,
        samples_per_s=rate.value if rate else None,
        samples_per_s_ci95=_ends(rate) if rate else None,
        rounds=duel.rounds,
        environment_changes=tuple(differences(document["environment"], environment_of(facts))),
    )


def _estimate(value: float, ci95: Sequence[float] | None) -> Estimate:
    return Estimate(value, Interval(*ci95) if ci95 else None)


def _low(estimate: Estimate) -> float:
    return estimate.interval.low if estimate.interval else estimate.value


def _high(estimate: Estimate) -> float:
    return estimate.interval.high if estimate.interval else estimate.value


def _standing(duel: Duel) -> str:
    comparison = duel.comparison()
    if comparison is None:
        return ""
    ends = comparison.ratio.interval
    within = f" ({ends.low:.2f} to {ends.high:.2f})" if ends else ""
    return f"round {duel.rounds}: {comparison.ratio.value:.2f}× the baseline{within}"


def _ends(estimate: Estimate) -> tuple[float, float] | None:
    return (estimate.interval.low, estimate.interval.high) if estimate.interval else None
