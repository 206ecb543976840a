"""An ablation from the shell, with real training. Interruptions and budgets: tests/ablation, in virtual time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

WORKLOAD = Path(__file__).parents[1] / "execution" / "workload" / "unstable.py"
SPEC = {
    "model": {"factory": "unstable:build_model"},
    "data": {"factory": "unstable:build_data"},
    "training": {"effective_batch_size": 16},
    "device": "cpu",
    "budget": "40s",  # for six runs and the start: five times what they need on an idle machine
    "ablation": {"factors": {"grad_accum_steps": [1, 4]}, "rounds": 3},
}


def test_every_cell_is_trained_in_every_round(tmp_path: Path) -> None:
    shutil.copy(WORKLOAD, tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(SPEC))
    command = [sys.executable, "-m", "autotune", "ablate", "tiny.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "studies/ablation/tiny/ablation.md\n"
    folder = tmp_path / "studies/ablation/tiny"
    records = [json.loads(path.read_text()) for path in sorted((folder / "trials").iterdir())]
    assert sorted((record["round"], record["result"]["config"]["micro_batch_size"]) for record in records) == [
        (number, size) for number in (1, 2, 3) for size in (4, 16)
    ]
    found = json.loads((folder / "ablation.json").read_text())
    assert found["rounds"] == 3
    assert [cell["config"]["micro_batch_size"] for cell in found["cells"]] == [16, 4]
    assert all(cell["samples_per_s"] > 0 and cell["loss"] > 0 for cell in found["cells"])
    assert len(found["effects"]) == 1
