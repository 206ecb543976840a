"""What the runs say: the verdict of the moment, for any configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotune.config import TrainConfig
from autotune.records import Check, Measurement, TrialResult
from autotune.search.decide.checks import soak_checks
from autotune.search.decide.confirming import Confirming
from autotune.search.decide.soak import failed_soak
from autotune.search.decide.study import StudySoFar, warm_baseline
from autotune.search.decide.verdict import STABLE, UNCONFIRMED, Closest, Verdict
from autotune.search.decide.watched import Watched, is_sound
from autotune.search.figures import measurement_of, measurement_of_runs, relative_error, samples_per_s
from autotune.search.gates import (
    SOAK_THROUGHPUT,
    known_speedup,
    meets,
    soak_throughput,
    steady_state,
    undisturbed_runs,
)
from autotune.stats import WORTHWHILE, Comparison, Estimate, Outcome, Posterior, judge, stated


def provisional(study: StudySoFar) -> Verdict | None:
    """The best so far that meets the constraints, by its one run of the search. It is compared with the baseline's
    second run, if there is one. None before the baseline has a measurement."""
    baseline = warm_baseline(study.records)
    if baseline is None:
        return None
    fastest = next((record for record in study.measured if meets(record, study.constraints)), baseline)
    stands = samples_per_s(baseline) >= samples_per_s(fastest) and meets(baseline, study.constraints)
    if stands or fastest.result.config == study.baseline:
        fastest = baseline
    ours, theirs = measurement_of(fastest.result), measurement_of(baseline.result)
    ratio = Estimate(ours.samples_per_s / theirs.samples_per_s, None)
    return Verdict(
        config=fastest.result.config,
        measured=ours,
        baseline_config=baseline.result.config,
        baseline=theirs,
        speedup=Comparison(ratio=ratio, outcome=Outcome.AMBIGUOUS, pairs=0),
    )


def before_its_soak(confirming: Confirming) -> Verdict | None:
    """The leader of the rounds: the result if its soak is interrupted. None if no leader is worth it, or if its soak
    failed in an earlier session."""
    config, study = confirming.leader, confirming.study
    if config is None or not confirming.is_worthwhile(config) or failed_soak(study, config):
        return None
    return verdict(confirming, config, [*checks_before_soak(confirming, config), *soak_checks(study, None)])


def baseline_stands(confirming: Confirming, closest: Closest | None, soaked: TrialResult | None = None) -> Verdict:
    """The verdict on the baseline. `soaked`: its soak. Without one the baseline is unconfirmed."""
    baseline, study = confirming.baseline, confirming.study
    known = confirmed_well(confirming, baseline)
    checks = [*confirming.checks(baseline), *known, nothing_faster(study, closest), *soak_checks(study, soaked)]
    if soaked and is_sound(soaked):
        checks.append(agreement(confirming, baseline, soaked))
    return verdict(confirming, baseline, checks, soaked=soaked if soaked and is_sound(soaked) else None)


def verdict(
    confirming: Confirming, config: TrainConfig, checks: Sequence[Check], *, soaked: TrialResult | None = None
) -> Verdict:
    """On the baseline, or one that is worthwhile. `soaked`: its soak; where that contradicts the confirming runs, its
    figure alone is emitted."""
    baseline = confirming.baseline
    ours, theirs = _confirmed(confirming, config, soaked), _confirmed(confirming, baseline)
    speedup = confirming.speedup(config)
    if soaked and any(check.name == SOAK_THROUGHPUT and not check.holds for check in checks):
        ours = measurement_of_runs([soaked], stated(_by_its_soak(confirming, config, soaked)))
        speedup = compared_by_its_soak(confirming, config, soaked)
    if config == baseline:
        theirs = ours
        speedup = Comparison(ratio=Estimate(1.0, None), outcome=Outcome.TIE, pairs=confirming.speedup(config).pairs)
    return Verdict(
        config=config,
        measured=ours,
        baseline_config=baseline,
        baseline=theirs,
        speedup=speedup,
        checks=checks,
        refused=confirming.finalists.refused,
        settings=confirming.settings(config),
        word=STABLE if all(check.holds for check in checks) else UNCONFIRMED,
    )


def checks_before_soak(confirming: Confirming, config: TrainConfig) -> list[Check]:
    missing = Watched(confirming.study).missing(config)
    return [*confirming.checks(config), *confirmed_well(confirming, config), *([missing] if missing else [])]


def confirmed_well(confirming: Confirming, config: TrainConfig) -> list[Check]:
    """Whether its measurements are reliable. If not, it is unconfirmed, not refused."""
    runs = list(confirming.runs(config).values())
    if config == confirming.baseline:
        return [steady_state(runs), undisturbed_runs(runs)]
    theirs = confirming.runs(confirming.baseline).values()
    return [steady_state(runs), undisturbed_runs([*runs, *theirs]), known_speedup(confirming.speedup(config))]


def agreement(confirming: Confirming, config: TrainConfig, soaked: TrialResult) -> Check:
    """Whether the soak was as fast as the confirming runs. If so, it counts as one more run for the throughput. The
    ratio stays that of the rounds, in which the baseline ran too."""
    measured = confirming.measured
    error = math.hypot(relative_error(soaked), measured.accuracy(config))
    return soak_throughput(soaked, samples_per_s(soaked), measured.rate(config), error)


def compared_by_its_soak(confirming: Confirming, config: TrainConfig, soaked: TrialResult) -> Comparison:
    """The soak against the baseline's confirming runs. They are not of the same rounds, so the difference between
    rounds counts as noise."""
    theirs = confirming.measured.rate(confirming.baseline)
    return judge(_by_its_soak(confirming, config, soaked).less(theirs), pairs=1)


def nothing_faster(study: StudySoFar, closest: Closest | None) -> Check:
    """The check that the baseline is kept because the others were measured and are not faster, not because measurements
    are missing.

    Value: the upper end of the interval of the best other configuration; its ratio where there is no interval.
    """
    if closest is None:
        settled = study.exhausted
        detail = "" if settled else "no other configuration was measured and passed the stability tests"
        return Check(name="nothing_faster", passed=settled, value=1.0, limit=WORTHWHILE, detail=detail)
    config, comparison = closest
    interval = comparison.ratio.interval
    passed = comparison.outcome is not Outcome.AMBIGUOUS or bool(interval and interval.high <= WORTHWHILE)
    names = ", ".join(f"{knob} {own}" for knob, (own, _) in config.differences(study.baseline).items())
    within = f", {interval.low:.2f} to {interval.high:.2f}" if interval else ""
    detail = f"the best other, {names}: {comparison.ratio.value:.2f}×{within}, {comparison.outcome}"
    value = interval.high if interval else comparison.ratio.value
    return Check(name="nothing_faster", passed=passed, value=value, limit=WORTHWHILE, detail=detail)


def _by_its_soak(confirming: Confirming, config: TrainConfig, soaked: TrialResult) -> Posterior:
    """The posterior of ln(samples per second) from the soak: one run, as precise as its blocks, and as far from the
    next run as runs are here."""
    return Posterior.of_one(
        math.log(samples_per_s(soaked)),
        confirming.measured.rate(config).noise,
        math.hypot(relative_error(soaked), confirming.measured.accuracy(config)),
    )


def _confirmed(confirming: Confirming, config: TrainConfig, soaked: TrialResult | None = None) -> Measurement:
    runs = [*confirming.runs(config).values(), *([soaked] if soaked else [])]
    return measurement_of_runs(runs, confirming.measured.throughput(config, soaked))
