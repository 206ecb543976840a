"""Searches from the shell that are interrupted, killed, starved of disk or of time."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.processes import gone, marked
from support.shell import Shell

pytestmark = pytest.mark.slow


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.clean_up()


def test_killed_it_loses_no_finished_trial_and_interrupted_it_emits_the_best_so_far(shell: Shell) -> None:
    """One study for both. `tests/search` resumes after an interruption, in virtual time."""
    process = shell.start()
    shell.wait_for_trials(2)
    time.sleep(random.uniform(0, 1.5))
    process.kill()
    process.communicate()
    assert gone(shell.mark)
    kept = shell.study.read_trials()
    code, stdout, stderr = shell.interrupt_after(len(kept) + 2, "--json")
    assert code == 130, stderr
    assert gone(shell.mark)
    records = shell.study.read_trials()
    assert records[: len(kept)] == kept
    assert records[len(kept)].elapsed_s > kept[-1].elapsed_s, "the same budget goes on"
    best = yaml.safe_load(shell.study.best.read_text())
    assert best["stability"]["verdict"] == "unconfirmed"
    assert json.loads(stdout)["best"] == best, "one JSON document and nothing else"
    assert "RUNNING" not in shell.optuna_states()
    # On a machine that is busy, the search's time may end within a trial: that is told as one without a result.
    whole = [record for record in records if record.optuna_trial is not None and not record.cut_short]
    told = [record.optuna_trial for record in whole]
    assert shell.optuna_states().count("COMPLETE") == len(told) == len(set(told))


def test_killed_processes_cost_a_trial_at_most_and_the_search_goes_on(shell: Shell) -> None:
    """The first step in each process is slow, so that processes stay for several trials; in the end the controller."""
    shell.write_spec("lasting")
    moments = random.Random()
    process = shell.start("--use-all")
    for _ in range(2):
        done = len(shell.study.read_trials()) if shell.study.trials.exists() else 0
        shell.wait_for_trials(max(done + 1, 2))
        time.sleep(moments.uniform(0, 1.0))
        moments.choice([victim for victim in marked(shell.mark) if victim.pid != process.pid]).kill()
    done = len(shell.study.read_trials())
    shell.wait_for_trials(done + 2)
    deadline_s = time.monotonic() + 30.0
    while not any(record.result.runs_before for record in shell.study.read_trials()) and time.monotonic() < deadline_s:
        time.sleep(0.2)  # the process of each trial so far was a victim
    assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    assert gone(shell.mark)
    records = shell.study.read_trials()
    assert [record.number for record in records] == list(range(len(records)))
    assert len(records) >= done + 2
    assert any(record.result.runs_before for record in records)


def test_a_full_disk_is_said_and_nothing_is_lost(shell: Shell) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = shell.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this machine cannot mount a tmpfs")
    try:
        code, _, stderr = shell.run(out=disk / "study")
        assert code == 4, stderr
        assert "free some space" in stderr
        assert "Traceback" not in stderr
        for record in (disk / "study" / "trials").glob("0*.json"):
            json.loads(record.read_text())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert gone(shell.mark)
