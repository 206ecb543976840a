"""A training loop as a practitioner writes it, without a line of autotune, to hold the emitted figures against.

    python plain_loop.py BEST_YAML IMAGE_FOLDER SECONDS

Reads a line from stdin, trains for SECONDS after a short warm-up, prints the samples per second; again for every line.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import timm
import torch
import yaml
from timm.data.transforms_factory import create_transform
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

WARM_UP_STEPS = 4


def batches(config: dict[str, Any], folder: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    images = ImageFolder(folder, create_transform(64, is_training=True))
    workers = config["num_workers"]
    loader = DataLoader(
        images,
        batch_size=config["micro_batch_size"],
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=config["prefetch_factor"] if workers else None,
    )
    while True:
        yield from loader


def main(best_file: str, folder: str, seconds: float) -> None:
    with open(best_file) as file:  # noqa: PTH123 - as a practitioner writes it
        config = yaml.safe_load(file)["config"]
    torch.set_num_threads(config["num_threads"])
    layout = torch.channels_last if config["memory_format"] == "channels_last" else torch.contiguous_format
    model = timm.create_model("resnet18", num_classes=10).to(memory_format=layout)
    model.train()
    fused = True if config["fused_optimizer"] else None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, fused=fused)
    data = batches(config, folder)
    accumulate = config["grad_accum_steps"]

    def train_one_step() -> None:
        for _ in range(accumulate):
            inputs, targets = next(data)
            inputs = inputs.to(memory_format=layout)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config["amp_dtype"] == "bf16"):
                loss = cross_entropy(model(inputs), targets) / accumulate
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in sys.stdin:
        for _ in range(WARM_UP_STEPS):
            train_one_step()
        steps, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            train_one_step()
            steps += 1
        elapsed = time.perf_counter() - began
        print(steps * accumulate * config["micro_batch_size"] / elapsed, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
