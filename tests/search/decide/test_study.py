"""What is read from the records of a study."""

from __future__ import annotations

from support.deciding import BASE, BF16, FOUR, TWO, in_rounds, ran, searched, so_far, watched_runs

from autotune.records import Purpose, TrialStatus
from autotune.search.decide.judging import provisional

RECORDS = [*searched({BASE: 1000.0, TWO: 1200.0, FOUR: 1500.0}), ran(BF16, TrialStatus.OOM)]


def test_measured_are_trials_of_the_search_with_a_figure_the_fastest_first() -> None:
    study = so_far([*RECORDS, *in_rounds({TWO: [9000.0]})])
    assert [record.result.config for record in study.measured] == [FOUR, TWO, BASE]
    assert study.tried == {FOUR, TWO, BASE}


def test_eligible_are_those_that_meet_the_constraints() -> None:
    """Those on measures: on knobs, the space does; a baseline outside of it is what there is to compare with."""
    study = so_far(RECORDS, sections={"constraints": ["peak_memory_bytes <= 33MiB", "num_workers >= 2"]})
    assert [record.result.config for record in study.eligible] == [FOUR, TWO, BASE]
    study = so_far(RECORDS, sections={"constraints": ["peak_memory_bytes <= 31MiB"]})
    assert study.eligible == []


def test_until_the_rounds_others_are_judged_by_the_baselines_warm_run() -> None:
    """Its trial comes before all others, and may read what they find in memory from disk."""
    cold, warm = ran(BASE, 200.0, Purpose.BASELINE), ran(BASE, 1000.0, Purpose.REPEAT)
    for records, rate in (
        ([cold], 7.5),
        ([cold, warm], 1.5),
        ([cold, ran(BASE, TrialStatus.OOM, Purpose.REPEAT)], 7.5),
    ):
        verdict = provisional(so_far([*records, ran(FOUR, 1500.0)]))
        assert verdict is not None
        assert verdict.config == FOUR
        assert abs(verdict.speedup.ratio.value / rate - 1) < 0.05
    stands = provisional(so_far([cold, warm, ran(FOUR, 900.0)]))
    assert stands is not None
    assert stands.config == BASE
    assert stands.speedup.ratio.value == 1.0


def test_the_baselines_trial_is_the_one_that_measured_it() -> None:
    failed = ran(BASE, TrialStatus.CRASHED, Purpose.BASELINE)
    assert so_far([failed]).baseline_trial is None
    baseline = so_far([failed, *RECORDS]).baseline_trial
    assert baseline is not None
    assert baseline.number == 1


def test_what_hung_in_an_earlier_session_may_have_had_no_time() -> None:
    hung = ran(BASE, TrialStatus.TIMEOUT, Purpose.REFERENCE, seed=3)
    records = [*RECORDS, hung, *watched_runs(BF16)]
    assert so_far(records).hung == {(BASE, 3)}
    assert so_far(records, known_before=len(RECORDS) + 1).hung == frozenset()
    confirming = ran(BASE, TrialStatus.TIMEOUT, Purpose.CONFIRM)
    assert so_far([*RECORDS, confirming]).hung == frozenset(), "a run that is not watched"
