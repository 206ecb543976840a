"""What is said beside a result: no sentence without its reason, none that claims what was not looked at."""

from __future__ import annotations

from typing import Any

import pytest
from support.facts import cpu_facts
from support.results import result

from autotune.config import TrainConfig
from autotune.search.notes import notes_on


def verdict_note(*, is_baseline: bool, checks: list[dict[str, Any]]) -> str:
    document = result()
    document["stability"] |= {"checks": checks, "refused": []}
    if is_baseline:
        document["config"] = document["baseline"]["config"]
    return notes_on(document, [], TrainConfig.from_dict(document["baseline"]["config"]), cpu_facts())[0]


def check(name: str, **changes: Any) -> dict[str, Any]:
    return result()["stability"]["checks"][0] | {"name": name, "passed": False} | changes


@pytest.mark.parametrize("is_baseline", [True, False])
@pytest.mark.parametrize("checks", [[], [check("loss_rise", warns_only=True)], [check("finite_loss", passed=True)]])
def test_unconfirmed_has_a_reason_where_no_check_gives_one(is_baseline: bool, checks: list[dict[str, Any]]) -> None:
    note = verdict_note(is_baseline=is_baseline, checks=checks)
    assert "Unconfirmed: the time left was too short for confirming rounds" in note
    assert "beyond doubt" not in note, "nothing was compared"


def test_a_check_that_failed_is_the_reason() -> None:
    note = verdict_note(is_baseline=True, checks=[check("nothing_faster", detail="the best other: 0.77×")])
    assert note.startswith("No configuration was faster than the baseline beyond doubt")
    assert "Unconfirmed: the best other: 0.77×. A larger --budget goes on." in note
