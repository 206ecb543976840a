"""Small classifiers, each with one fault that a stability gate is there to find. For `factory:` in test specs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

FEATURES, CLASSES, SAMPLES = 16, 4, 4096
LATE = 30
"""Forward passes after which `DivergesLate` begins to."""
LEAK_FLOATS = 1 << 18
"""1 MiB."""


class Sound(nn.Module):
    loss_scale = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, 32)
        self.second = nn.Linear(32, CLASSES)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.second(functional.relu(self.first(x)))


class Wide(Sound):
    """An activation of about 100,000, scaled down again before it reaches the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.scale_up = Times(1e5)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.scale_up(functional.relu(self.first(x))).float() * 1e-5)


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class DivergesLate(Sound):
    """Sound in fp32. Under autocast its logits turn round, a little more with every step after the 30th."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        late = max(self.calls - LATE, 0) if torch.is_autocast_enabled("cpu") else 0
        return logits * (1 - 0.2 * late)


class Leaks(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.kept.append(torch.ones(LEAK_FLOATS))
        return super().forward(x)


class OverflowsEveryThirdStep(Sound):
    """In fp16 its gradient is infinite in every third step, whatever the loss scale."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        if self.calls % 3 == 0 and logits.dtype is torch.float16:
            logits.register_hook(lambda gradient: gradient * torch.inf)
        return logits


class Minute(Sound):
    """Its loss is so small that most of its gradients lie below fp16's range, even times the GradScaler's 65,536."""

    loss_scale = 1e-11


class Wild(Sound):
    """Its steps are as long as those of a learning rate 5,000 times too high."""

    loss_scale = 5e3


KINDS = (Sound, Wide, DivergesLate, Leaks, OverflowsEveryThirdStep, Minute, Wild)
MODELS = {kind.__name__: kind for kind in KINDS}


def build_model(kind: str = "Sound") -> nn.Module:
    return MODELS[kind]()


class Separable(Dataset[Any]):
    """Points around four centres."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        centres = 2 * torch.randn(CLASSES, FEATURES, generator=random)
        self.targets = torch.randint(CLASSES, (SAMPLES,), generator=random)
        self.inputs = centres[self.targets] + torch.randn(SAMPLES, FEATURES, generator=random)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]


def build_data() -> Dataset[Any]:
    return Separable()


def scaled_cross_entropy(model: Sound, batch: tuple[Tensor, Tensor]) -> Tensor:
    return model.loss_scale * functional.cross_entropy(model(batch[0]), batch[1])
