"""Searches of workloads that sleep, run for real, and what a plain PyTorch loop says of their results.

    python benchmarks/sleeping_worlds.py [--world NAME] [--runs 1] [--budget 100s]

Four worlds take some nine minutes a run. A row says what the plain loop gets with the emitted configuration (its
truth: whole epochs after the first, in a process that has started up), the emitted figure, and how near the truth comes
to that of the space's best configuration, which is known from the times that everything sleeps.
"""

from __future__ import annotations

import argparse
import itertools
import math
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from sleeping_workload import SleepingModel, SleepingSamples
from torch import nn
from torch.utils.data import DataLoader

from autotune.config import TrainConfig
from autotune.measure import prefetch_queue
from autotune.search import search
from autotune.spec import load_spec
from autotune.store import StudyFolder

EFFECTIVE = 64
MICRO = (16, 32, 64)
PREFETCH = (2, 4)
TIMED_S = 10.0
AWAKE_S = 0.001
"""Of a micro-batch's step, about: forward, backward and the optimizer compute for so long."""
CLOSE, GOOD = 0.05, 0.95
COLUMNS = ["world", "run", "truth", "emitted", "95 % interval", "ratio", "of the best", "verdict", "trials", "timed, %"]
COLUMNS += ["done after, s", "seconds", "micro-batch, workers, prefetch", "best"]


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
    """Of the first step in a process."""
    start_s: float = 0.0
    """Of the first model in a process."""
    workers: tuple[int, ...] = (0, 1, 2, 4, 8)
    samples: int = 2048

    def rate(self, config: TrainConfig) -> float:
        """Samples per second over whole epochs, as calculated: good enough to tell which configuration is best."""
        size = config.micro_batch_size
        batches = self.samples // size
        epoch_s = prefetch_queue.epoch_seconds(
            batches,
            workers=config.num_workers,
            prefetch=config.prefetch_factor or 0,
            fetch_s=[self.fetch_s * size],
            step_s=AWAKE_S + self.batch_s + self.step_s * size,
        )
        return batches * size / epoch_s

    def best(self) -> TrainConfig:
        """With the fewest workers of those that are as fast."""
        configs = [
            TrainConfig(
                micro_batch_size=size,
                grad_accum_steps=EFFECTIVE // size,
                num_workers=workers,
                prefetch_factor=prefetch if workers else None,
                num_threads=1,
            )
            for workers, prefetch, size in itertools.product(self.workers, PREFETCH, MICRO)
        ]
        return max(configs, key=lambda config: (round(self.rate(config), 3), -config.num_workers))


WORLDS = {
    "loader waits": World(fetch_s=0.005, batch_s=0.005, step_s=0.0003, first_s=3.0),
    "step limits": World(fetch_s=0.0002, batch_s=0.02, step_s=0.001),
    "slow start": World(fetch_s=0.0005, batch_s=0.01, step_s=0.0005, first_s=3.0, start_s=1.5),
    "both close": World(fetch_s=0.004, batch_s=0.01, step_s=0.00085, workers=(0, 1, 2, 4)),
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One search, and what the plain loop says of it."""

    world: str
    run: int
    document: dict[str, Any]
    """`best.yaml`."""
    truth: float
    best: float
    """What the plain loop gets with the best configuration."""
    timed: float
    """Share of the search's seconds, from the beginning of its first run on, that blocks of timed steps took."""
    seconds: float

    @property
    def figure(self) -> float:
        return float(self.document["measured"]["samples_per_s"])

    @property
    def ratio(self) -> float:
        return self.figure / self.truth

    def cells(self) -> list[str]:
        interval = self.document["measured"]["samples_per_s_ci95"]
        return [
            self.world,
            str(self.run),
            f"{self.truth:.0f}",
            f"{self.figure:.0f}",
            "none" if interval is None else f"{interval[0]:.0f} to {interval[1]:.0f}",
            f"{self.ratio:.3f}",
            f"{self.truth / self.best:.3f}",
            self.document["stability"]["verdict"],
            str(self.document["search"]["trials"]),
            f"{100 * self.timed:.0f}",
            f"{self.document['search']['elapsed_s']:.0f}",
            f"{self.seconds:.0f}",
            _fed(TrainConfig.from_dict(self.document["config"])),
            _fed(WORLDS[self.world].best()),
        ]


def _fed(config: TrainConfig) -> str:
    return f"{config.micro_batch_size}, {config.num_workers}, {config.prefetch_factor or 'none'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", choices=WORLDS)
    parser.add_argument("--runs", type=int, default=1, help="searches of each world")
    parser.add_argument("--budget", default="100s", help="of each search")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores: on purpose
    print(*map(_line, (COLUMNS, ["---"] * len(COLUMNS))), sep="\n", flush=True)
    results = []
    for run, name in itertools.product(range(options.runs), [options.world] if options.world else WORLDS):
        results.append(judged(name, run, options.budget))
        print(_line(results[-1].cells()), flush=True)
    close = sum(abs(result.ratio - 1) <= CLOSE for result in results)
    good = sum(result.truth >= GOOD * result.best for result in results)
    print(f"\nOf {len(results)}: {close} figures within {CLOSE:.0%} of the truth, {good} with {GOOD:.0%} of the best.")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def judged(name: str, run: int, budget: str) -> Result:
    world, began_s = WORLDS[name], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        document = searched(world, budget, Path(folder))
        timed = timed_share(StudyFolder(Path(folder) / "study"), document["search"]["elapsed_s"])
    truth = plain_loop(world, TrainConfig.from_dict(document["config"]))
    best = plain_loop(world, world.best())
    seconds = time.monotonic() - began_s
    return Result(world=name, run=run, document=document, truth=truth, best=best, timed=timed, seconds=seconds)


def timed_share(folder: StudyFolder, elapsed_s: float) -> float:
    records = folder.read_trials()
    began_s = records[0].elapsed_s - records[0].result.wall_s
    return math.fsum(block.seconds for record in records for block in record.result.blocks) / (elapsed_s - began_s)


def searched(world: World, budget: str, folder: Path) -> dict[str, Any]:
    spec = {
        "model": {
            "factory": "sleeping_workload:build_model",
            "args": {
                "batch_s": world.batch_s,
                "sample_s": world.step_s,
                "first_s": world.first_s,
                "start_s": world.start_s,
            },
        },
        "data": {
            "factory": "sleeping_workload:build_data",
            "args": {"samples": world.samples, "sample_s": world.fetch_s},
        },
        "training": {"optimizer": {"name": "sgd", "lr": 0.05}, "effective_batch_size": EFFECTIVE},
        "budget": budget,
        "device": "cpu",
        "baseline": {"micro_batch_size": 16, "num_workers": 0, "num_threads": 1},
        "search": {
            "micro_batch_size": list(MICRO),
            "num_workers": list(world.workers),
            "prefetch_factor": list(PREFETCH),
            "num_threads": 1,
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
    """Samples per second over whole epochs after the first, for at least `TIMED_S` seconds.

    In one thread, as the search has it: several would wait for each other where other work keeps the cores busy.
    """
    torch.set_num_threads(1)
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
