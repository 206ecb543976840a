"""Three workloads that sleep, searched for real through the whole command, against a plain DataLoader loop.

    python benchmarks/sleeping_worlds.py [waiting | computing | close] [--budget 100s] [--seconds 15]

Prints the emitted figure ÷ truth, and the truth of the emitted configuration ÷ that of the best number of workers.
A step sleeps in forward, a sample in `__getitem__`: the rates are known, and hardly depend on the machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import sleeping
import torch
import yaml
from torch.utils.data import DataLoader

WORKERS = [0, 1, 2, 4, 8]
PARTS: dict[str, dict[str, float]] = {
    "waiting": {"sample_s": 0.004, "step_sample_s": 0.0005, "first_step_s": 3.0},
    "computing": {"sample_s": 0.0005, "step_sample_s": 0.002, "first_step_s": 0.5},
    "close": {"sample_s": 0.004, "step_sample_s": 0.001, "first_step_s": 1.0},
}
SAMPLES, MICRO = 4000, 16


def spec(parts: dict[str, float], budget: str) -> dict[str, Any]:
    model = {name: parts[name] for name in ("step_sample_s", "first_step_s")}
    return {
        "name": "sleeping",
        "model": {"factory": "sleeping:build", "args": model},
        "data": {"factory": "sleeping:data", "args": {"samples": SAMPLES, "sample_s": parts["sample_s"]}},
        "training": {"effective_batch_size": 32},
        "budget": budget,
        "baseline": {"micro_batch_size": MICRO, "num_workers": 0},
        "search": {
            "micro_batch_size": [MICRO, 2 * MICRO],
            "amp_dtype": "none",
            "num_workers": WORKERS,
            "prefetch_factor": 2,
            "memory_format": "contiguous",
            "compile": "none",
            "num_threads": 1,
            "fused_optimizer": False,
            "activation_checkpointing": False,
        },
        "stability": {"soak_steps": 100},
    }


def searched(parts: dict[str, float], budget: str) -> dict[str, Any]:
    """The `best.yaml` of a search through the command."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        source = Path(sleeping.__file__)
        (folder / source.name).write_text(source.read_text())
        (folder / "sleeping.yaml").write_text(yaml.safe_dump(spec(parts, budget)))
        command = [sys.executable, "-m", "autotune", "search", str(folder / "sleeping.yaml"), "--device", "cpu"]
        command += ["--out", str(folder / "study"), "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = yaml.safe_load((folder / "study" / "best.yaml").read_text())
        return found


def plain_loop(parts: dict[str, float], *, micro: int, accumulate: int, workers: int, seconds: float) -> float:
    """Samples per second of whole epochs after the first, until they have taken `seconds`."""
    model = sleeping.build(parts["step_sample_s"], first_step_s=0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = DataLoader(
        sleeping.data(SAMPLES, parts["sample_s"]),
        batch_size=micro,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=2 if workers else None,
    )
    began_s, done, batches = 0.0, 0, 0
    for epoch in itertools.count():
        if epoch == 1:
            began_s, done = time.perf_counter(), 0
        elif epoch and time.perf_counter() - began_s >= seconds:
            return done / (time.perf_counter() - began_s)
        for inputs, targets in loader:
            loss = torch.nn.functional.cross_entropy(model(inputs), targets) / accumulate
            loss.backward()
            batches += 1
            if batches % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
            done += len(targets)
    raise AssertionError("epochs do not end")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("worlds", nargs="*", default=list(PARTS))
    parser.add_argument("--budget", default="100s")
    parser.add_argument("--seconds", type=float, default=15.0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.worlds:
        parts = PARTS[name]
        best = searched(parts, asked.budget)
        config = best["config"]
        micro = config["micro_batch_size"]
        shape = {"micro": micro, "accumulate": config["grad_accum_steps"]}
        true = plain_loop(parts, workers=config["num_workers"], seconds=asked.seconds, **shape)
        others = [plain_loop(parts, workers=number, seconds=asked.seconds / 2, **shape) for number in WORKERS[2:]]
        row = {
            "world": name,
            "workers": config["num_workers"],
            "figure": best["measured"]["samples_per_s"],
            "figure ÷ truth": round(best["measured"]["samples_per_s"] / true, 3),
            "of the best": round(true / max(true, *others), 3),
            "speedup": best["speedup"],
            "verdict": best["stability"]["verdict"],
        }
        print(json.dumps(row, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
