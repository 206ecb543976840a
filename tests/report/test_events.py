"""`--events FILE`: JSON lines of what a study does, for other tools."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.blocks import blocks_of
from support.facts import cpu_facts
from support.runs import run
from support.screen import BASELINE, FAST, progress, standing

from autotune.errors import EnvironmentFailure
from autotune.records import Phase, Predicted, Purpose, Running, SearchResult, TrialRecord
from autotune.report.events import EventLog


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def events(path: Path) -> list[str]:
    return [line["event"] for line in lines(path)]


def result() -> SearchResult:
    best = {"stability": {"verdict": "stable"}, "speedup": {"ratio": 2.5}}
    return SearchResult(folder="studies/mine", best=best, facts=cpu_facts(), dropped=(), notes=())


def test_a_study_from_beginning_to_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    running = Running(
        config=FAST, purpose=Purpose.SEARCH, since_s=2.0, predicted=Predicted(samples_per_s=200, low=150, high=250)
    )
    blocks = {"samples_per_s": 240.0, "samples_per_s_ci95": (230.0, 250.0)}
    record = TrialRecord(
        number=1,
        purpose=Purpose.SEARCH,
        elapsed_s=8.0,
        started="",
        result=run(blocks=blocks_of(np.full(4, 0.1))),
        environment=cpu_facts(),
    )
    with EventLog(path) as log:
        log.on_progress(progress(phase=Phase.SEARCHING))
        log.on_progress(progress(running=(running,)))
        log.on_progress(progress(running=(running.model_copy(update=blocks),)))
        log.on_trial(record)
        log.on_progress(progress(baseline=standing(BASELINE, 100), leaders=(standing(FAST, 240),), message="trial 1"))
        log.on_progress(progress(baseline=standing(BASELINE, 100), leaders=(standing(FAST, 240),)))
        log.ended("done", result(), best=Path("studies/mine/best.yaml"))
    assert events(path) == ["began", "phase", "trial_began", "trial_block", "trial_ended", "best", "ended"]
    seen = {line["event"]: line for line in lines(path)}
    assert all(datetime.fromisoformat(line["at"]).tzinfo and line["elapsed_s"] >= 0 for line in lines(path))
    assert seen["trial_began"]["predicted"] == {"samples_per_s": 200, "low": 150, "high": 250}
    assert seen["trial_began"]["config"]["amp_dtype"] == "bf16"
    assert seen["trial_block"]["samples_per_s_ci95"] == [230.0, 250.0]
    assert seen["trial_ended"]["status"] == "ok"
    assert seen["trial_ended"]["samples_per_s"] > 0
    assert seen["best"]["ratio"] == pytest.approx(2.4)
    assert seen["ended"] == seen["ended"] | {"outcome": "done", "verdict": "stable", "ratio": 2.5, "reason": None}


def test_an_error_is_the_last_line_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with pytest.raises(EnvironmentFailure), EventLog(path) as log:
        log.on_progress(progress())
        raise EnvironmentFailure("the device is gone")
    assert lines(path)[-1] == lines(path)[-1] | {"event": "ended", "outcome": "failed", "reason": "the device is gone"}


def test_a_second_study_goes_on_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for _ in range(2):
        with EventLog(path) as log:
            log.on_progress(progress())
            log.ended("interrupted")
    assert events(path) == ["began", "phase", "ended"] * 2


def test_a_file_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match=r"events\.jsonl"), EventLog(tmp_path / "none" / "events.jsonl"):
        pass


def test_nobody_asked_for_events() -> None:
    with EventLog(None) as log:
        log.on_progress(progress())
        log.ended("done")
