"""Searches of workloads that sleep, run for real, and what a plain PyTorch loop says of their results.

    python benchmarks/sleeping_worlds.py [--world NAME] [--budget 100s]

For each world: the emitted figure over what the plain loop gets with the emitted configuration, and the latter over
what it gets with the best configuration of the space, which is known from the times that everything sleeps.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from sleeping_workload import SleepingModel, SleepingSamples
from torch import nn
from torch.utils.data import DataLoader

from autotune.config import TrainConfig
from autotune.search import search
from autotune.spec import load_spec
from autotune.store import StudyFolder

EFFECTIVE = 64
MICRO = (16, 32, 64)
TIMED_S = 12.0


@dataclass(frozen=True)
class World:
    """Seconds that everything sleeps."""

    fetch_s: float
    """Of a sample as it loads."""
    batch_s: float
    """Of a micro-batch's step, whatever its size."""
    step_s: float
    """Of a step, for each sample."""
    first_s: float = 0.5
    workers: tuple[int, ...] = (0, 1, 2, 4, 8)
    samples: int = 2048

    def rate(self, config: TrainConfig) -> float:
        """Samples per second in the middle of an epoch."""
        size = config.micro_batch_size
        step_s = self.batch_s + self.step_s * size
        if not config.num_workers:
            return size / (step_s + self.fetch_s * size)
        return min(size / step_s, config.num_workers / self.fetch_s)

    def best(self) -> TrainConfig:
        """With the fewest workers of those that are as fast."""
        configs = (
            TrainConfig(
                micro_batch_size=size,
                grad_accum_steps=EFFECTIVE // size,
                num_workers=workers,
                prefetch_factor=2 if workers else None,
            )
            for size, workers in itertools.product(MICRO, self.workers)
        )
        return max(configs, key=lambda config: (round(self.rate(config), 3), -config.num_workers))


WORLDS = {
    "loader waits": World(fetch_s=0.005, batch_s=0.005, step_s=0.0003, first_s=3.0),
    "step limits": World(fetch_s=0.0002, batch_s=0.02, step_s=0.001),
    "both close": World(fetch_s=0.004, batch_s=0.01, step_s=0.00085, workers=(0, 1, 2, 4)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", choices=WORLDS)
    parser.add_argument("--budget", default="100s")
    options = parser.parse_args()
    for name in [options.world] if options.world else WORLDS:
        report(name, WORLDS[name], options.budget)


def report(name: str, world: World, budget: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        document = searched(world, budget, Path(folder))
    emitted = TrainConfig.from_dict(document["config"])
    figure, interval = document["measured"]["samples_per_s"], document["measured"]["samples_per_s_ci95"]
    truth, best = plain_loop(world, emitted), plain_loop(world, world.best())
    within = "no interval" if interval is None else f"{interval[0]:.0f} to {interval[1]:.0f}"
    lines = [
        f"{name}: {document['stability']['verdict']}, {document['search']['trials']} trials",
        f"  emitted {figure:.0f} samples/s ({within}), plain loop {truth:.0f}: {figure / truth:.3f}",
        f"  plain loop with the best configuration {best:.0f}: {truth / best:.3f} of it",
        f"  micro-batch {emitted.micro_batch_size}, workers {emitted.num_workers}, prefetch {emitted.prefetch_factor}",
        f"  {document['measured']['bottleneck']}",
    ]
    print("\n".join(lines), flush=True)


def searched(world: World, budget: str, folder: Path) -> dict[str, Any]:
    spec = {
        "model": {
            "factory": "sleeping_workload:build_model",
            "args": {"batch_s": world.batch_s, "sample_s": world.step_s, "first_s": world.first_s},
        },
        "data": {
            "factory": "sleeping_workload:build_data",
            "args": {"samples": world.samples, "sample_s": world.fetch_s},
        },
        "training": {"optimizer": {"name": "sgd", "lr": 0.05}, "effective_batch_size": EFFECTIVE},
        "budget": budget,
        "device": "cpu",
        "baseline": {"micro_batch_size": 16, "num_workers": 0},
        "search": {
            "micro_batch_size": list(MICRO),
            "num_workers": list(world.workers),
            "prefetch_factor": [2, 4],
            "amp_dtype": "none",
            "compile": "none",
            "fused_optimizer": False,
        },
        "stability": {"soak_steps": 50},
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    (folder / "sleeping_workload.py").write_text(Path(__file__).with_name("sleeping_workload.py").read_text())
    return search(load_spec(folder / "spec.yaml"), StudyFolder(folder / "study")).best


def plain_loop(world: World, config: TrainConfig) -> float:
    """Samples per second over whole epochs after the first, for at least `TIMED_S` seconds."""
    model = SleepingModel(world.batch_s, world.step_s, 0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    workers: dict[str, Any] = (
        {"persistent_workers": True, "prefetch_factor": config.prefetch_factor} if config.num_workers else {}
    )
    loader = DataLoader(
        SleepingSamples(world.samples, world.fetch_s),
        batch_size=config.micro_batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=config.num_workers,
        **workers,
    )
    train_epoch(model, optimizer, loader, config.grad_accum_steps)
    samples, began_s = 0, time.monotonic()
    while time.monotonic() - began_s < TIMED_S:
        samples += train_epoch(model, optimizer, loader, config.grad_accum_steps)
    return samples / (time.monotonic() - began_s)


def train_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, loader: Any, accumulate: int) -> int:
    samples = 0
    for number, (inputs, targets) in enumerate(loader):
        loss = nn.functional.cross_entropy(model(inputs), targets)
        (loss / accumulate).backward()
        if (number + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        samples += len(targets)
    return samples


if __name__ == "__main__":
    main()
