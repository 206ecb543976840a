"""Searches from the shell on a small workload, every process of them marked."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import optuna
import yaml

from autotune.store import StudyFolder
from support.processes import MARK, marked

_WORKLOAD = Path(__file__).parents[1] / "execution" / "workload"
_BUDGET = "60s"
"""More than anything here needs, even on a machine that others keep busy."""


class Shell:
    """Runs `autotune search` on a small workload, every process marked."""

    def __init__(self, folder: Path, *, budget: str = _BUDGET, workers: int = 1) -> None:
        """`folder`: for the study, and for temporary files; `workers`: the most that the loader may have."""
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.study = StudyFolder(folder / "study")
        folder.mkdir(parents=True, exist_ok=True)
        self.temporary = Path(tempfile.mkdtemp(prefix="autotune-tests-"))
        """Not in `folder`: paths of sockets in it would be too long."""
        self.spec = _WORKLOAD / f"spec-{self.mark}.yaml"
        self._budget, self._workers = budget, workers
        self.write_spec()

    def write_spec(self, module: str = "misbehaving", **search: Any) -> None:
        """`module`: the workload's; `search`: domains in the place of the usual ones."""
        spec = {
            "model": {"factory": f"{module}:build_model"},
            "data": {"factory": f"{module}:build_data"},
            "training": {"effective_batch_size": 40},
            "budget": self._budget,
            "device": "cpu",
            "baseline": {"micro_batch_size": 20},
            "search": {
                "micro_batch_size": [20, 40],
                "num_workers": [0, self._workers],
                "prefetch_factor": 2,
                "compile": "none",
                "num_threads": 1,
                "fused_optimizer": False,
                **search,
            },
            "stability": {"soak_steps": 20},
        }
        self.spec.write_text(yaml.safe_dump(spec))

    def start(self, *options: str, out: Path | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "autotune", "search", str(self.spec), "--out", str(out or self.study.path)]
        return subprocess.Popen(
            [*command, *options],
            env=os.environ | {MARK: self.mark, "TMPDIR": str(self.temporary)},
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

    def clean_up(self) -> None:
        self.spec.unlink()
        for process in marked(self.mark):
            process.kill()
        shutil.rmtree(self.temporary, ignore_errors=True)
