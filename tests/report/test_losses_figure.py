"""What stands under the losses: which runs there are, and no word about those that there are not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support.studies import finished

from autotune.records import Purpose
from autotune.report.figures.losses import FIGURE


@pytest.mark.parametrize(
    ("left_out", "said", "not_said"),
    [
        (Purpose.REFERENCE, "the study ended before the fp32 reference beside them was run", "band"),
        (Purpose.PROBE, "the study ended before a finalist was run beside it", "Finalists and"),
    ],
)
def test_runs_for_which_there_was_no_time(tmp_path: Path, left_out: Purpose, said: str, not_said: str) -> None:
    reading = finished("gpu", tmp_path)
    assert reading.of_purpose(left_out)
    kept = tuple(record for record in reading.records if record.purpose is not left_out)
    caption = FIGURE.caption(dataclasses.replace(reading, records=kept))
    assert said in caption and not_said not in caption


def test_one_seed_has_no_band(tmp_path: Path) -> None:
    reading = finished("gpu", tmp_path)
    seed = min(record.result.seed for record in reading.of_purpose(Purpose.REFERENCE))
    kept = tuple(r for r in reading.records if r.purpose is not Purpose.REFERENCE or r.result.seed == seed)
    assert "band" not in FIGURE.caption(dataclasses.replace(reading, records=kept))


def test_without_either_it_is_said_whether_one_was_needed(tmp_path: Path) -> None:
    reading = finished("gpu", tmp_path)
    kept = tuple(r for r in reading.records if r.purpose not in (Purpose.REFERENCE, Purpose.PROBE))
    assert reading.emitted.amp_dtype != "none"
    caption = FIGURE.caption(dataclasses.replace(reading, records=kept))
    assert "changes the arithmetic, and the study ended before it was compared" in caption
