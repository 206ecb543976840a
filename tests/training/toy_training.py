"""A small model, data and train step that the tests of this folder share."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from autotune.config import TrainConfig
from autotune.training import TrainStep

CPU = torch.device("cpu")
Batch = tuple[Tensor, Tensor]


def mean_loss(model: nn.Module, batch: Batch) -> Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1])


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def draw(samples: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(samples, 4, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, 3, (samples,), generator=generator)


def cut(batch: Batch, sizes: list[int]) -> list[Batch]:
    edges = [0, *torch.tensor(sizes).cumsum(0).tolist()]
    return [(batch[0][a:b], batch[1][a:b]) for a, b in pairwise(edges)]


def make_step(model: nn.Module, loss_fn: Any = mean_loss, *, clip: float | None = None, **config: Any) -> TrainStep:
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return TrainStep(model, optimizer, loss_fn, TrainConfig(**config), device=CPU, clip_grad_norm=clip)
