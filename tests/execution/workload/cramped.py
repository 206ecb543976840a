"""A model that runs out of memory above a number of samples, as the allocator of a GPU says it. For `factory:`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset


class Cramped(nn.Module):
    def __init__(self, most: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
        self.most = most

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > self.most:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {len(inputs)} MiB.")
        return self.layers(inputs)  # type: ignore[no-any-return]


def build_model(most: int) -> nn.Module:
    return Cramped(most)


def build_data() -> TensorDataset:
    inputs = torch.randn(512, 16, generator=torch.Generator().manual_seed(0))
    return TensorDataset(inputs, inputs[:, :4].argmax(dim=1))
