"""Comparisons by real short runs: one workload under two names, and one that does 5 % more work for each sample.

    python benchmarks/real_comparisons.py [COMPARISONS]

Each comparison runs rounds of two fresh processes, in random order, until it is decided or has had 60 rounds.
"""

from __future__ import annotations

import collections
import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from autotune.config import TrainConfig
from autotune.execution import LocalBackend
from autotune.records import TrialRequest
from autotune.stats import Rounds, throughput, undisturbed

WIDTH, WORK, MORE_WORK = 192, 40, 42
CONFIG = TrainConfig(micro_batch_size=32, num_threads=1)
MOST_ROUNDS, SECONDS = 60, 0.4


class Products(nn.Module):
    """`repeats` matrix products, forward and backward."""

    def __init__(self, repeats: int) -> None:
        super().__init__()
        self.repeats = repeats
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH) / math.sqrt(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.repeats):
            x = torch.tanh(x @ self.weight)
        return x


def build_model(repeats: int) -> nn.Module:
    return Products(repeats)


def build_data() -> Dataset[Any]:
    return TensorDataset(torch.randn(512, WIDTH), torch.zeros(512, dtype=torch.long))


def loss(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def main() -> None:
    comparisons = int((sys.argv[1:] or ["10"])[0])
    backends = {repeats: start(repeats) for repeats in (WORK, MORE_WORK)}
    try:
        for name, slower in (("identical", WORK), ("5 % less work", MORE_WORK)):
            found = [one(backends[WORK], backends[slower], seed) for seed in range(comparisons)]
            words = collections.Counter(word for word, _, _ in found)
            rounds = sorted(pairs for _, pairs, _ in found)
            ratios = [round(ratio, 3) for _, _, ratio in found]
            print(json.dumps({"compared": name, "words": words, "rounds": rounds, "ratios": ratios}), flush=True)
    finally:
        for backend in backends.values():
            backend.close()


def start(repeats: int) -> LocalBackend:
    spec = {
        "model": {"factory": "real_comparisons:build_model", "args": {"repeats": repeats}},
        "data": {"factory": "real_comparisons:build_data"},
        "training": {"loss": "real_comparisons:loss"},
        "budget": "1h",
        "device": "cpu",
    }
    backend = LocalBackend(spec, Path(__file__).parent)
    backend.facts(120)
    return backend


def one(first: LocalBackend, second: LocalBackend, seed: int) -> tuple[str, int, float]:
    shuffle, logs = random.Random(seed), list[list[float]]()
    while len(logs) < 2 or (len(logs) < MOST_ROUNDS and not Rounds(logs).is_decided(0, 1)):
        sides = shuffle.sample([0, 1], 2)
        rates = {side: rate((first, second)[side], seed + len(logs)) for side in sides}
        logs.append([math.log(rates[0]), math.log(rates[1])])
    comparison = Rounds(logs).compare(0, 1)
    return str(comparison.outcome), comparison.pairs, comparison.ratio.value


def rate(backend: LocalBackend, seed: int) -> float:
    request = TrialRequest(config=CONFIG, seed=seed, time_limit_s=SECONDS, min_blocks=4, target_relative_error=0.01)
    return throughput(undisturbed(backend.run(request, deadline_s=30, on_event=lambda _event: None).blocks))


if __name__ == "__main__":
    main()
