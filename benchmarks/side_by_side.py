"""Whether a trial's throughput is what others would measure: a trial's loop, a plain loop as PyTorch's tutorials write
it, and the method of timm's `benchmark.py`, alternating in one process on in-memory data.

    python benchmarks/side_by_side.py [MODEL] [ROUNDS]

timm's method (its `benchmark.py`, class TrainBenchmarkRunner): one fixed batch that lies on the device, no loader,
forward, backward and optimizer step timed one by one, with the device waited for after each step.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from autotune.config import TrainConfig
from autotune.measure import Measurement
from autotune.records import Block, MachineState, TrialRequest
from autotune.stats import Rounds, throughput
from autotune.training import LossFn, TrainStep, apply_to_model, build_dataloader
from autotune.trial.device import resolve_device, synchronise
from autotune.trial.loop import Loop, Watch
from autotune.trial.machine_watch import MachineWatch
from autotune.trial.observed_loader import ObservedLoader
from autotune.trial.timeline import make_timeline

BATCH, IMAGE, CLASSES, SAMPLES = 32, 64, 10, 512
SEGMENT_S = 0.8

Segment = Callable[[], float]
"""Trains for about SEGMENT_S seconds; samples per second."""


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "resnet18"
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    device = resolve_device("auto")
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(SAMPLES, 3, IMAGE, IMAGE), torch.randint(CLASSES, (SAMPLES,)))
    ways: dict[str, Segment] = {
        "trial": a_trials_loop(build(name, device), data, device),
        "plain loop": a_plain_loop(build(name, device), data, device),
        "timm's method": timms_method(build(name, device), data, device),
    }
    compare_ways(ways, rounds, {"model": name, "device": str(device), "torch": torch.__version__})


def compare_ways(ways: dict[str, Segment], rounds: int, about: dict[str, str]) -> None:
    """Alternate segments of all, and print the first's throughput over that of each other one."""
    for segment in ways.values():
        segment()
    logs: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in random.sample(list(ways), len(ways)):
            logs[way].append(math.log(ways[way]()))
    together = Rounds(list(zip(*logs.values(), strict=True)))
    first, *others = ways
    for column, other in enumerate(others, 1):
        found = together.compare(0, column).ratio
        ends = [round(end, 4) for end in (found.interval.low, found.interval.high)] if found.interval else None
        figures = {f"{first} ÷": other, "ratio": round(found.value, 4), "ci95": ends, "rounds": rounds}
        print(json.dumps(about | figures))


def build(name: str, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    extra = {"img_size": IMAGE} if "vit" in name else {}
    return apply_to_model(timm.create_model(name, num_classes=CLASSES, **extra), TrainConfig(), device).train()


def cross_entropy(model: nn.Module, batch: Any) -> torch.Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1])


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def a_trials_loop(model: nn.Module, data: TensorDataset, device: torch.device) -> Segment:
    config = TrainConfig(micro_batch_size=BATCH)
    return trial_segment(model, sgd(model), cross_entropy, data, config, device)


def trial_segment(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: LossFn,
    data: Dataset[Any],
    config: TrainConfig,
    device: torch.device,
) -> Segment:
    """The loop of a trial, measured by itself."""
    watch = Watch(timeline=make_timeline(device, time.monotonic))
    step = TrainStep(model, optimizer, loss_fn, config, device=device, observer=watch)
    observed = ObservedLoader(config)
    loop = Loop(
        batches=observed.batches(build_dataloader(data, config, device=device, seed=0)),
        step=step,
        clock=time.monotonic,
        synchronise=partial(synchronise, device),
        watch=watch,
    )
    request = TrialRequest(config=config, seed=0, time_limit_s=SEGMENT_S, target_relative_error=0.0)

    def unjudged(_state: MachineState, _seconds: float) -> tuple[()]:
        return ()

    def segment() -> float:
        blocks: list[Block] = []

        def keep(event: str, payload: dict[str, Any]) -> None:
            if event == "block":
                blocks.append(Block.model_validate(payload["block"]))

        Measurement(loop, observed, request, keep, machine=MachineWatch(device), judge=unjudged).run()
        return throughput(blocks)

    return segment


def a_plain_loop(model: nn.Module, data: TensorDataset, device: torch.device) -> Segment:
    optimizer = sgd(model)
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True, drop_last=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))

    def segment() -> float:
        steps, wait = 0, partial(synchronise, device)
        wait()
        began = time.perf_counter()
        while time.perf_counter() - began < SEGMENT_S:
            inputs, targets = next(batches)
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs.to(device)), targets.to(device))
            loss.backward()
            optimizer.step()
            steps += 1
        wait()
        return steps * BATCH / (time.perf_counter() - began)

    return segment


def timms_method(model: nn.Module, data: TensorDataset, device: torch.device) -> Segment:
    optimizer = sgd(model)
    inputs, targets = (tensor[:BATCH].to(device) for tensor in data.tensors)

    def one_step() -> float:
        began = time.perf_counter()
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        synchronise(device)
        return time.perf_counter() - began

    def segment() -> float:
        times: list[float] = []
        while sum(times) < SEGMENT_S:
            times.append(one_step())
        return len(times) * BATCH / sum(times)

    return segment


if __name__ == "__main__":
    main()
