"""What stands under the losses: which runs there are, and no word about those that there are not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support.studies import finished

from autotune.config import TrainConfig
from autotune.records import OptimizerSteps, Purpose, TrialResult, TrialStatus
from autotune.report.figures.losses import FIGURE, curve


@pytest.mark.parametrize(
    ("left_out", "said", "not_said"),
    [
        (Purpose.REFERENCE, "The study ended before the fp32 reference ran", "band"),
        (Purpose.PROBE, "The study ended before a finalist ran", "Finalists and"),
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
    assert "changes the numerics, and the study ended before it was compared" in caption


def test_steps_without_samples_are_no_point() -> None:
    steps = OptimizerSteps(losses=[3.0, 2.0, 1.0], samples=[4, 0, 4], skipped=[False] * 3)
    run = TrialResult(config=TrainConfig(), status=TrialStatus.OK, seed=0, wall_s=1.0, steps=steps)
    assert curve(run) == ([4, 8], [3.0, 1.0])
    assert curve(run, most=1) == ([4], [2.0])
