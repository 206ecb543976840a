"""What the machine does during a study, independent of the process: bursts of other work, and drift of its speed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from autotune.execution.simulated.cores import Burst
from autotune.execution.simulated.world import Noise


class Outside:
    def __init__(self, noise: Noise, seed: str, began_s: float) -> None:
        self._noise = noise
        self._random = random.Random(f"outside {seed}")
        self._phase = self._random.uniform(0, 2 * math.pi)
        self._bursts: list[Burst] = []
        self._known_to_s = began_s

    def slowness(self, at_s: float) -> float:
        """The factor by which the machine's drift multiplies all seconds."""
        return math.exp(self._noise.drift * math.sin(self._phase + 2 * math.pi * at_s / self._noise.drift_period_s))

    def bursts(self, from_s: float) -> Iterator[Burst]:
        """Those that end after `from_s`, in order."""
        if math.isinf(self._noise.burst_every_s):
            return
        number = 0
        while True:
            if number == len(self._bursts):
                self._bursts.append(self._next())
            if self._bursts[number].to_s > from_s:
                yield self._bursts[number]
            number += 1

    def _next(self) -> Burst:
        noise = self._noise
        start_s = self._known_to_s + self._random.expovariate(1 / noise.burst_every_s)
        self._known_to_s = start_s + self._random.expovariate(1 / noise.burst_s)
        return Burst(start_s, self._known_to_s, noise.burst_cores, self._random.random() >= noise.burst_unseen)
