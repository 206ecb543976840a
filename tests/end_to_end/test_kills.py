"""Any process of a search is killed at any moment: nothing is lost, nothing is left over, and the study goes on.

AUTOTUNE_KILLS says how many times (2 where it is not set), AUTOTUNE_KILL_SEED which moments, AUTOTUNE_KILL_WORKLOAD in
which module of `tests/execution/workload`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from support.processes import gone, marked
from support.shell import Shell

from autotune.store import StudyFolder

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc").exists(), reason="Linux only")]

KILLS = int(os.environ.get("AUTOTUNE_KILLS", "2"))
SEED = int(os.environ.get("AUTOTUNE_KILL_SEED", "0")) or random.randrange(1 << 30)
WORKLOAD = os.environ.get("AUTOTUNE_KILL_WORKLOAD", "misbehaving")
LASTS_S = 20.0
"""About what a search takes here: a moment that comes too late is replaced by an earlier one."""
END_WITHIN_S = 5.0
_STAYS = "torchinductor_"
"""The compiler's cache, which is there to stay."""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path, budget="30s", workers=2)
    shell.write_spec(WORKLOAD)
    yield shell
    shell.clean_up()


@pytest.mark.parametrize("number", range(KILLS))
def test_any_process_may_be_killed_at_any_moment(shell: Shell, number: int) -> None:
    generator = random.Random(f"{SEED} {number}")
    print(f"AUTOTUNE_KILL_SEED={SEED}, kill {number}", end=": ")
    controller, victim, tree = kill_something(shell, generator)
    before = files_of(shell.study)
    # The controller is this process's own child, whose exit code nobody else may fetch.
    _, alive = psutil.wait_procs([each for each in tree if each.pid != controller.pid], timeout=END_WITHIN_S)
    assert [describe(process, controller) for process in alive] == [], "what it had started outlives it"
    stdout, stderr = controller.communicate(timeout=180)
    print(f"{victim}; the controller ended with {controller.returncode}, {stderr.strip().splitlines()[-1:]}")
    assert gone(shell.mark, END_WITHIN_S)
    assert "Traceback" not in stderr
    assert kept(before, shell.study)

    code, stdout, stderr = shell.run("--json")
    assert code == 0, stderr
    assert gone(shell.mark, END_WITHIN_S)
    assert kept(before, shell.study)
    assert json.loads(stdout)["best"] == yaml.safe_load(shell.study.best.read_text())
    assert "RUNNING" not in shell.optuna_states()
    told = [record.optuna_trial for record in shell.study.read_trials() if record.optuna_trial is not None]
    assert len(told) == len(set(told))
    assert [path.name for path in shell.temporary.iterdir() if not path.name.startswith(_STAYS)] == []
    pids = [str(process.pid) for process in tree]
    assert [name for name in shared_memory() if any(pid in name.split("_") for pid in pids)] == []


def kill_something(shell: Shell, generator: random.Random) -> tuple[subprocess.Popen[str], str, list[psutil.Process]]:
    """The controller, what was killed, and the processes that are to end with it."""
    longest_s = LASTS_S
    while True:
        controller = shell.start()
        moment_s = generator.uniform(0, longest_s)
        try:
            controller.wait(moment_s)
        except subprocess.TimeoutExpired:
            found = sorted(marked(shell.mark), key=lambda process: process.pid)
            try:
                victim = generator.choice(found)
                description = f"{describe(victim, controller)} of {len(found)} after {moment_s:.1f} s"
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
