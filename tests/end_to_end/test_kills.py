"""Any process of a search is killed at any moment: nothing is lost, nothing is left over, nobody is blamed, and the
study goes on.

AUTOTUNE_KILLS says how many times (2 where it is not set), AUTOTUNE_KILL_SEED which moments, AUTOTUNE_KILL_WORKLOAD in
which module of `tests/execution/workload`, else in each of `WORKLOADS` in turn. AUTOTUNE_KILL_RECORDS and
AUTOTUNE_KILL_WITHIN: after how many records, and within how many seconds from then; the second line is where one side
is measured.

    AUTOTUNE_KILLS=50 python -m pytest -m slow -s tests/end_to_end/test_kills.py
    AUTOTUNE_KILL_RECORDS=1 AUTOTUNE_KILL_WITHIN=6 AUTOTUNE_KILL_WORKLOAD=apart AUTOTUNE_KILLS=15 python -m pytest …
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from support.processes import gone, has_ended, marked
from support.shell import Shell

from autotune.records import TrialStatus
from autotune.store import StudyFolder

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc").exists(), reason="Linux only")]

KILLS = int(os.environ.get("AUTOTUNE_KILLS", "2"))
SEED = int(os.environ.get("AUTOTUNE_KILL_SEED", "0")) or random.randrange(1 << 30)
BUDGET_S = 40
WORKLOADS: dict[str, dict[str, Any]] = {
    "misbehaving": {},  # here nothing but well: a process for each run
    "lasting": {},  # the first step in a process is slow, so that processes stay
    "apart": {  # and one side alone is measured
        "micro_batch_size": [5, 10, 20, 40],
        "num_workers": [0, 1, 2, 4],
        "prefetch_factor": [1, 2, 4],
        "amp_dtype": "none",
    },
}
"""Modules, each with what is searched beside the usual."""
ONE_WORKLOAD = os.environ.get("AUTOTUNE_KILL_WORKLOAD")
BLAMED = (TrialStatus.OOM, TrialStatus.CRASHED, TrialStatus.FAILED, TrialStatus.DIVERGED)
"""What no configuration of these workloads does by itself."""
RECORDS = int(os.environ.get("AUTOTUNE_KILL_RECORDS", "0"))
WITHIN_S = float(os.environ.get("AUTOTUNE_KILL_WITHIN", f"{0.9 * BUDGET_S}"))
"""About what a search takes here: a moment that comes too late is replaced by an earlier one."""
END_WITHIN_S = 5.0
_STAYS = "torchinductor_"
"""The compiler's cache, which is there to stay."""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path, budget=f"{BUDGET_S}s", workers=2)
    yield shell
    shell.clean_up()


@pytest.mark.parametrize("number", range(KILLS))
def test_any_process_may_be_killed_at_any_moment(shell: Shell, number: int) -> None:
    generator = random.Random(f"{SEED} {number}")
    workload = ONE_WORKLOAD or list(WORKLOADS)[number % len(WORKLOADS)]
    shell.write_spec(workload, **WORKLOADS.get(workload, {}))
    print(f"AUTOTUNE_KILL_SEED={SEED}, kill {number}, {workload}", end=": ")
    controller, victim, tree = kill_something(shell, generator)
    before = files_of(shell.study)
    # The controller is this process's own child, whose exit code nobody else may fetch.
    _, there = psutil.wait_procs([each for each in tree if each.pid != controller.pid], timeout=END_WITHIN_S)
    alive = [describe(process, controller) for process in there if not has_ended(process)]
    assert alive == [], f"what {victim} had started outlives it"
    stdout, stderr = controller.communicate(timeout=180)
    print(f"{victim}; the controller ended with {controller.returncode}, {stderr.strip().splitlines()[-1:]}")
    assert gone(shell.mark, END_WITHIN_S)
    assert "Traceback" not in stderr
    assert kept(before, shell.study)
    assert controller.returncode == (-signal.SIGKILL if victim.startswith("controller") else 0), stderr

    code, stdout, stderr = shell.run("--json")
    assert code == 0, stderr
    assert gone(shell.mark, END_WITHIN_S)
    assert kept(before, shell.study)
    best = json.dumps(yaml.safe_load(shell.study.best.read_text()))
    assert json.loads(stdout)["best"] == json.loads(best, parse_constant=lambda _infinite: None)
    assert "RUNNING" not in shell.optuna_states()
    records = shell.study.read_trials()
    assert [record.number for record in records if record.result.status in BLAMED] == []
    told = [record.optuna_trial for record in records if record.optuna_trial is not None]
    assert len(told) == len(set(told))
    assert [path.name for path in shell.temporary.iterdir() if not path.name.startswith(_STAYS)] == []
    pids = [str(process.pid) for process in tree]
    assert [name for name in shared_memory() if any(pid in name.split("_") for pid in pids)] == []


def kill_something(shell: Shell, generator: random.Random) -> tuple[subprocess.Popen[str], str, list[psutil.Process]]:
    """The controller, what was killed, and the processes that are to end with it."""
    longest_s = WITHIN_S
    while True:
        controller = shell.start()
        moment_s = generator.uniform(0, longest_s)
        shell.wait_for_trials(RECORDS)
        try:
            controller.wait(moment_s)
        except subprocess.TimeoutExpired:
            found = sorted(marked(shell.mark), key=lambda process: process.pid)
            try:
                victim = generator.choice(found)
                among = Counter(describe(process, controller) for process in found)
                moment = f"{moment_s:.1f} s after {RECORDS} records"
                description = f"{describe(victim, controller)} of {dict(among)} {moment}"
                tree = [victim, *victim.children(recursive=True)]
                victim.kill()
            except (psutil.NoSuchProcess, IndexError):  # it has just ended by itself
                pass
            else:
                return controller, description, tree
        controller.communicate(timeout=180)
        if shell.study.path.exists():
            shell.study.path.rename(shell.folder / f"ended-before-{moment_s}")
        longest_s = moment_s


def describe(process: psutil.Process, controller: subprocess.Popen[str]) -> str:
    """Its role in the search."""
    try:
        above = [process, *process.parents()]
        generation = [each.pid for each in above].index(controller.pid)
        leads = os.getsid(process.pid) == process.pid
    except (ProcessLookupError, psutil.NoSuchProcess, ValueError):
        return "ended process"
    if generation == 0:
        return "controller"
    if generation == 1:
        return "template" if leads else "other process of the controller"
    if leads:
        return "trial"
    return "template's fork" if generation == 2 else "loader process"


def files_of(study: StudyFolder) -> dict[str, str]:
    """Records on disk, all of which parse."""
    found = {path.name: path.read_text() for path in study.trials.glob("[0-9]*.json")}
    for text in found.values():
        json.loads(text)
    return found


def kept(before: dict[str, str], study: StudyFolder) -> bool:
    """Whether all that was on record still is, as it was, and all there is can be read."""
    now = files_of(study)
    study.read_trials()
    if study.best.exists():
        yaml.safe_load(study.best.read_text())
    return before.items() <= now.items()


def shared_memory() -> list[str]:
    folder = Path("/dev/shm")
    return [path.name for path in folder.iterdir()] if folder.exists() else []
