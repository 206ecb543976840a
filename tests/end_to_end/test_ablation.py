"""An ablation from the shell, with real training."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

SPEC = {
    "model": {"timm": "resnet10t", "args": {"num_classes": 4}},
    "data": {"synthetic": {"samples": 256, "classes": 4, "image_size": 32}},
    "training": {"effective_batch_size": 16},
    "device": "cpu",
    "budget": "2m",  # twelve runs that start PyTorch each: a third of it is not enough on a slow machine
    "ablation": {
        "factors": {"grad_accum_steps": [1, 4], "memory_format": ["contiguous", "channels_last"]},
        "rounds": 3,
    },
}


def test_interrupted_and_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(SPEC))
    command = [sys.executable, "-m", "autotune", "ablate", "tiny.yaml"]
    begun = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert begun.stderr is not None
    for line in begun.stderr:
        if "round 1" in line:
            begun.send_signal(signal.SIGINT)
            break
    begun.communicate(timeout=60)
    assert begun.returncode == 130
    trials = tmp_path / "studies/ablation/tiny/trials"
    kept = {path.name: path.read_text() for path in trials.iterdir()}
    assert len(kept) >= 4

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "studies/ablation/tiny/ablation.md\n"
    assert kept.items() <= {path.name: path.read_text() for path in trials.iterdir()}.items()
    found = json.loads((tmp_path / "studies/ablation/tiny/ablation.json").read_text())
    assert found["rounds"] == 3
    assert {cell["config"]["micro_batch_size"] for cell in found["cells"]} == {16, 4}
    assert all(cell["samples_per_s"] > 0 and cell["loss"] > 0 for cell in found["cells"])
    assert len(found["effects"]) == 3
