"""What is said beside a result: no sentence without its reason, none that claims what was not looked at."""

from __future__ import annotations

from typing import Any

import pytest
from support.deciding import BASE, BF16_TWO, ran
from support.facts import cpu_facts
from support.results import result

from autotune.config import TrainConfig
from autotune.records import Failure, Purpose, TrialRecord, TrialResult, TrialStatus
from autotune.search.gates import BUDGET_ENDED
from autotune.search.notes import notes_on


def verdict_note(*, is_baseline: bool, checks: list[dict[str, Any]]) -> str:
    document = result()
    document["stability"] |= {"checks": checks, "refused": []}
    if is_baseline:
        document["config"] = document["baseline"]["config"]
    return notes_on(document, [], TrainConfig.from_dict(document["baseline"]["config"]), cpu_facts())[0]


def check(name: str, **changes: Any) -> dict[str, Any]:
    return result()["stability"]["checks"][0] | {"name": name, "passed": False} | changes


@pytest.mark.parametrize(
    ("detail", "fails"),
    [("the loss is nan", True), (f"{BUDGET_ENDED} after 17 of the soak's 30 steps; use at least 3m", False)],
)
def test_a_baseline_whose_soak_only_the_budget_ended_does_not_fail(detail: str, fails: bool) -> None:
    note = verdict_note(is_baseline=True, checks=[check("soak", value=17, limit=30, detail=detail)])
    assert ("your training fails" in note) is fails
    assert detail in note


def test_no_budget_helps_a_baseline_that_leaks() -> None:
    note = verdict_note(is_baseline=True, checks=[check("memory_growth", detail="host memory: 2 MiB a step")])
    assert "memory grows with the baseline settings, host memory: 2 MiB a step" in note
    assert "--budget" not in note


@pytest.mark.parametrize("is_baseline", [True, False])
@pytest.mark.parametrize("checks", [[], [check("loss_rise", warns_only=True)], [check("finite_loss", passed=True)]])
def test_unconfirmed_has_a_reason_where_no_check_gives_one(is_baseline: bool, checks: list[dict[str, Any]]) -> None:
    note = verdict_note(is_baseline=is_baseline, checks=checks)
    assert "Not confirmed: there was no time for confirming rounds" in note
    assert "reliably" not in note, "nothing was compared"


def test_a_baseline_that_ran_cold_alone_is_said_to_have() -> None:
    document = result()
    document["speedup"] |= {"pairs": 0}
    baseline = TrainConfig.from_dict(document["baseline"]["config"])

    def is_said(*records: TrialRecord) -> bool:
        return any("ran cold" in note for note in notes_on(document, records, baseline, cpu_facts()))

    first, repeat = ran(baseline, 100.0, Purpose.BASELINE), ran(baseline, 200.0, Purpose.REPEAT)
    assert is_said(first)
    assert is_said(first, ran(baseline, TrialStatus.OOM, Purpose.REPEAT))
    assert not is_said(first, repeat)
    document["speedup"] |= {"pairs": 3}
    assert not is_said(first)


def test_a_check_that_failed_is_the_reason() -> None:
    note = verdict_note(is_baseline=True, checks=[check("nothing_faster", detail="the best other: 0.77×")])
    assert note.startswith("No configuration was reliably faster than the baseline")
    assert "Not confirmed: the best other: 0.77×. Run the same command with a larger --budget" in note


@pytest.mark.parametrize(("grad_accum_steps", "said"), [(4, True), (1, False)])
def test_a_mean_of_means_is_told_where_what_was_emitted_accumulates(grad_accum_steps: int, said: bool) -> None:
    document = result()
    document["config"]["grad_accum_steps"] = grad_accum_steps
    seen = trial().model_copy(update={"mean_of_means": True})
    record = TrialRecord(
        number=0, purpose=Purpose.SEARCH, elapsed_s=1.0, started="now", result=seen, environment=cpu_facts()
    )
    for records, expected in (([record], said), ([], False)):
        notes = notes_on(document, records, TrainConfig(), cpu_facts())
        assert any("short micro-batches weigh more" in note for note in notes) is expected


def trial() -> TrialResult:
    return TrialResult(config=TrainConfig(), status=TrialStatus.OK, seed=0, wall_s=1.0)


@pytest.mark.parametrize(("num_workers", "said"), [(4, True), (1, False), (0, False)])
def test_a_stream_that_repeats_in_its_processes_is_told_where_there_are_several(num_workers: int, said: bool) -> None:
    document, facts = result(), cpu_facts()
    document["config"]["num_workers"] = num_workers
    workload = facts.workload.model_copy(update={"repeats_in_processes": True})
    notes = notes_on(document, [], TrainConfig(), facts.model_copy(update={"workload": workload}))
    assert any(f"holds every sample {num_workers} times" in note for note in notes) is said


def test_a_trial_that_failed_is_told_with_the_settings_that_failed() -> None:
    failure = Failure(reason="ValueError: no")
    failed = ran(BF16_TWO, TrialStatus.FAILED, failure=failure).model_copy(update={"number": 7})

    def said(*records: TrialRecord) -> str:
        return next(note for note in notes_on(result(), records, BASE, cpu_facts()) if "failed in" in note)

    settings = "amp_dtype bf16, num_workers 2, prefetch_factor 2"
    assert said(failed) == (
        f"1 trial failed in the search. The first one (trials/0007.json), with {settings}: ValueError: no"
    )
    baseline = ran(BASE, TrialStatus.FAILED, Purpose.CONFIRM, failure=failure)
    assert said(baseline, failed) == (
        "2 trials failed in the confirmation. The first one (trials/0000.json), with the baseline's settings: "
        "ValueError: no"
    )
