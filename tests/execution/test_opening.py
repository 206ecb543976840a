"""A data set is opened once for all trials where that is safe, and for each of them where it is not."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.config import TrainConfig
from autotune.errors import AutotuneError, NoStableConfiguration
from autotune.execution import LocalBackend
from autotune.records import TrialRequest, TrialResult, TrialStatus
from autotune.trial.opening import _Footprint

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
WORKLOAD = Path(__file__).parent / "workload"


def spec(log: Path, way: str, **sections: Any) -> dict[str, Any]:
    return {
        "model": {"factory": "opened:build_model"},
        "data": {"factory": "opened:build_data", "args": {"log": str(log), "way": way}},
        "training": {"effective_batch_size": "free"},
        "budget": "1m",
        "device": "cpu",
        **sections,
    }


@contextmanager
def backend_of(log: Path, way: str, **sections: Any) -> Iterator[LocalBackend]:
    backend = LocalBackend(spec(log, way, **sections), WORKLOAD)
    try:
        yield backend
    finally:
        backend.close()


def trial(backend: LocalBackend, **config: Any) -> TrialResult:
    request = TrialRequest(
        config=TrainConfig(micro_batch_size=4, **config), seed=0, time_limit_s=0.1, max_blocks=2, max_steps=4
    )
    return backend.run(request, deadline_s=60, on_event=lambda _event: None)


def openings(log: Path) -> int:
    return len(log.read_text().splitlines())


@pytest.mark.slow
def test_it_is_opened_once_for_all_trials(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with backend_of(log, "maps a file") as backend:
        assert backend.facts(60).workload.dataset_samples == 64
        results = [trial(backend), trial(backend, num_workers=2, prefetch_factor=2), trial(backend)]
        assert [result.status for result in results] == [TrialStatus.OK] * 3
        assert openings(log) == 1
        assert backend.remarks == []
        losses = [result.steps.losses for result in results if result.steps]
        assert losses[0] == losses[2], "the same data for all"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("holds a file open", "/log open, and all trials would share its file position"),
        ("forks a process", "starts a process"),
    ],
)
def test_where_a_fork_would_spoil_it_each_trial_opens_it_and_the_user_hears_why(
    tmp_path: Path, way: str, why: str
) -> None:
    log = tmp_path / "log"
    with backend_of(log, way) as backend:
        backend.facts(60)
        assert [trial(backend).status for _ in range(2)] == [TrialStatus.OK] * 2
        assert openings(log) == 1 + 1 + 2, "to find out, for the facts, and for each trial"
        (remark,) = backend.remarks
        assert why in remark


@pytest.mark.slow
def test_one_that_hangs_ends_with_the_budget(tmp_path: Path) -> None:
    with backend_of(tmp_path / "log", "hangs") as backend, pytest.raises(NoStableConfiguration, match="what hangs"):
        backend.facts(10)


@pytest.mark.slow
@pytest.mark.parametrize(("way", "why"), [("dies", "SIGSEGV"), ("raises", "no such shard: train-0007")])
def test_what_is_wrong_with_it_is_said_as_ever(tmp_path: Path, way: str, why: str) -> None:
    with backend_of(tmp_path / "log", way) as backend, pytest.raises(AutotuneError, match=why):
        backend.facts(60)


@pytest.mark.slow
def test_a_look_at_the_workload_that_somebody_kills_is_taken_again(tmp_path: Path) -> None:
    model = {"factory": "opened:build_model", "args": {"killed": str(tmp_path / "killed")}}
    with backend_of(tmp_path / "log", "plain", model=model) as backend:
        assert backend.facts(60).workload.dataset_samples == 64
    assert (tmp_path / "killed").exists()


@pytest.mark.slow
def test_one_that_a_custom_knob_changes_is_opened_by_each_trial(tmp_path: Path) -> None:
    log = tmp_path / "log"
    knob = {"noise_level": {"arg": "data.args.noise_level", "values": [0.0, 1.0]}}
    with backend_of(log, "plain", search={"custom": knob}) as backend:
        backend.facts(60)
        trial(backend, custom=(("noise_level", 1.0),))
        assert openings(log) == 2


class TestFootprint:
    def test_nothing_new_may_be_forked(self) -> None:
        before = _Footprint.now()
        assert _Footprint.now().refusal(before) is None

    def test_a_thread(self) -> None:
        before, stop = _Footprint.now(), threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        try:
            assert _Footprint.now().refusal(before) == "opening it starts threads"
        finally:
            stop.set()
            thread.join()

    def test_a_process(self) -> None:
        before = _Footprint.now()
        with subprocess.Popen(["sleep", "60"]) as process:
            try:
                assert _Footprint.now().refusal(before) == "opening it starts a process"
            finally:
                process.kill()

    def test_an_open_file(self, tmp_path: Path) -> None:
        before = _Footprint.now()
        with (tmp_path / "shard").open("w"):
            refusal = _Footprint.now().refusal(before)
        assert refusal is not None
        assert "shard open" in refusal

    def test_a_connection(self) -> None:
        before = _Footprint.now()
        with socket.socket():
            refusal = _Footprint.now().refusal(before)
        assert refusal is not None
        assert "socket" in refusal

    @pytest.mark.parametrize(("mode", "may_be_forked"), [("r", True), ("c", True), ("r+", False)])
    def test_a_mapped_file_may_be_read_and_not_written_by_all(
        self, tmp_path: Path, mode: Any, may_be_forked: bool
    ) -> None:
        np.save(tmp_path / "numbers.npy", np.zeros(1000))
        before = _Footprint.now()
        mapped = np.load(tmp_path / "numbers.npy", mmap_mode=mode)
        assert (_Footprint.now().refusal(before) is None) is may_be_forked
        assert mapped.shape == (1000,)
