"""What accumulation gains where several processes train together: gradients exchanged once a window, or with each
micro-batch, in stretches that alternate in the same processes.

    python benchmarks/no_sync.py [RANKS] [ROUNDS] [GRAD_ACCUM_STEPS]
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn import functional

from autotune.config import TrainConfig
from autotune.training import TrainStep, distribute
from autotune.training.together import Together

WIDTH, MICRO, STEPS_A_STRETCH = 1024, 8, 3


def main() -> None:
    ranks, rounds, accumulated = (
        int(argument) for argument in (*sys.argv[1:4], *("2", "20", "8")[len(sys.argv) - 1 :])
    )
    config = LaunchConfig(1, 1, ranks, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="spawn")
    ratios = elastic_launch(config, train)(rounds, accumulated)[0]
    ratios = sorted(ratios)
    print(
        json.dumps(
            {
                "ranks": ranks,
                "grad_accum_steps": accumulated,
                "rounds": rounds,
                "without_over_with_no_sync": round(statistics.median(ratios), 3),
                "quartiles": [round(quartile, 3) for quartile in statistics.quantiles(ratios, n=4)[::2]],
                "torch": torch.__version__,
            },
            indent=1,
        )
    )


def train(rounds: int, accumulated: int) -> list[float]:
    """Seconds without `no_sync` ÷ seconds with it, of each round."""
    device = torch.device("cpu")
    dist.init_process_group("gloo")
    torch.set_num_threads(max((os.cpu_count() or 1) // dist.get_world_size(), 1))
    torch.manual_seed(0)
    config = TrainConfig(
        micro_batch_size=MICRO, grad_accum_steps=accumulated, world_size=dist.get_world_size(), data_parallel="ddp"
    )
    layers = [layer for _ in range(4) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    model = distribute(nn.Sequential(*layers), config, device)
    step = TrainStep(model, torch.optim.SGD(model.parameters(), lr=1e-3), loss, config, device=device)
    batch = torch.randn(MICRO, WIDTH)
    pass_ = Together.pass_

    def seconds(*, no_sync: bool) -> float:
        Together.pass_ = pass_ if no_sync else always_exchange  # type: ignore[method-assign]
        dist.barrier()
        began_s = time.perf_counter()
        for _ in range(STEPS_A_STRETCH * accumulated):
            step(batch)
        return time.perf_counter() - began_s

    seconds(no_sync=True), seconds(no_sync=False)
    ratios = []
    for number in range(rounds):
        order = (True, False) if number % 2 else (False, True)
        taken = {no_sync: seconds(no_sync=no_sync) for no_sync in order}
        ratios.append(taken[False] / taken[True])
    return ratios


def always_exchange(_together: Together, *, last: bool) -> Any:
    return nullcontext()


def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(model(batch), batch)


if __name__ == "__main__":
    main()
