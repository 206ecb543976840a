"""What a trial reports besides its speed: falling losses, a first gradient, activations."""

from __future__ import annotations

import random
from typing import Any

from autotune.config import TrainConfig
from autotune.records import FirstGradient, LargestActivation, OptimizerSteps, TrialRequest

BATCHES = 0.02
"""Standard deviation of the logarithm of a batch's loss."""
ROUNDING = {"none": 0.0, "bf16": 2e-3, "fp16": 5e-4}


def loss_of(_config: TrainConfig, samples: int) -> float:
    """The loss after `samples`; training converges with every configuration."""
    return 2.3 / (1 + samples / 1000)


class Losses:
    """Runs of one seed see the same batches; in low precision each loss is rounded a little differently."""

    def __init__(self, request: TrialRequest) -> None:
        self._request = request
        self._batches = random.Random(request.seed)
        self._rounding = random.Random(f"{request.seed} {request.config.canonical_json()}")
        self._steps = 0

    def next(self, steps: int) -> OptimizerSteps:
        """Losses of the next `steps` optimizer steps."""
        config = self._request.config
        samples, rounding = config.effective_batch_size, ROUNDING[config.amp_dtype]
        losses = []
        for step in range(self._steps, self._steps + steps):
            rounded = self._rounding.lognormvariate(0, rounding) if rounding else 1.0
            losses.append(loss_of(config, (step + 1) * samples) * self._batches.lognormvariate(0, BATCHES) * rounded)
        first, self._steps = self._steps, self._steps + steps
        fp16 = config.amp_dtype == "fp16"
        return OptimizerSteps.model_construct(
            losses=losses,
            samples=[samples] * steps,
            skipped=[fp16 and step == 0 for step in range(first, self._steps)],  # the scaler begins too high
            loss_scales=[32768.0] * steps if fp16 else [],
            gradient_norms=[1.0] * steps if self._request.watch_training else [],
        )


def findings(request: TrialRequest) -> dict[str, Any]:
    """What a watched run reports about its first gradient and its activations."""
    if not request.watch_training:
        return {}
    same, rounding = random.Random(request.seed), random.Random(request.config.canonical_json())
    coarse = ROUNDING[request.config.amp_dtype]
    sketch = [same.gauss(0, 1) * (1 + rounding.gauss(0, coarse)) for _ in range(16)]
    return {
        "first_gradient": FirstGradient(sketch=sketch, norm=4.0, zero_share=0.0),
        "largest_activation": LargestActivation(value=12.0, module="layer1"),
    }
