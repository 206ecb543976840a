"""Searches from the shell that are interrupted, killed, starved of disk or of time."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import yaml
from support.processes import MARK, gone, marked

from autotune.store import StudyFolder

pytestmark = pytest.mark.slow

_WORKLOAD = Path(__file__).parents[1] / "execution" / "workload"
_BUDGET = "60s"
"""More than anything here needs, even on a machine that others keep busy."""


class Shell:
    """Runs `autotune search` on a small workload, every process marked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.study = StudyFolder(folder / "study")
        self.spec = _WORKLOAD / f"spec-{self.mark}.yaml"
        self.write_spec()

    def write_spec(self, module: str = "misbehaving") -> None:
        spec = {
            "model": {"factory": f"{module}:build_model"},
            "data": {"factory": f"{module}:build_data"},
            "training": {"effective_batch_size": 40},
            "budget": _BUDGET,
            "device": "cpu",
            "baseline": {"micro_batch_size": 20},
            "search": {
                "micro_batch_size": [20, 40],
                "num_workers": [0, 1],
                "prefetch_factor": 2,
                "compile": "none",
                "num_threads": 1,
                "fused_optimizer": False,
            },
            "stability": {"soak_steps": 20},
        }
        self.spec.write_text(yaml.safe_dump(spec))

    def start(self, *options: str, out: Path | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "autotune", "search", str(self.spec), "--out", str(out or self.study.path)]
        return subprocess.Popen(
            [*command, *options],
            env=os.environ | {MARK: self.mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell has its background jobs ignore it, and what they start, these tests among it, inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *options: str, out: Path | None = None) -> tuple[int, str, str]:
        process = self.start(*options, out=out)
        stdout, stderr = process.communicate(timeout=120)
        return process.returncode, stdout, stderr

    def wait_for_trials(self, count: int) -> None:
        deadline = time.monotonic() + 60
        while len(list(self.study.trials.glob("*.json"))) < count and time.monotonic() < deadline:
            time.sleep(0.05)

    def interrupt_after(self, trials: int, *options: str) -> tuple[int, str, str]:
        """Search until there are so many trials, then Ctrl-C."""
        process = self.start(*options)
        self.wait_for_trials(trials)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
        return process.returncode, stdout, stderr

    def optuna_states(self) -> list[str]:
        storage = optuna.storages.RDBStorage(f"sqlite:///{self.study.database}")
        trials = optuna.load_study(study_name="autotune", storage=storage).get_trials()
        storage.engine.dispose()
        return [trial.state.name for trial in trials]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.spec.unlink()
    for process in marked(shell.mark):
        process.kill()


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
    told = [record.optuna_trial for record in records if record.optuna_trial is not None]
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
