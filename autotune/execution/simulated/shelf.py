"""A few batches of each size that lie there for steps to be measured on: what it takes to have them."""

from __future__ import annotations

from autotune.execution.simulated.loader import VirtualLoader

HANDFUL, FEWEST = 4, 2
_LONG_S = 0.5
"""As `autotune.trial.sides` has them."""
_READ_S = 0.3e-3
"""For each sample: a picture of 224² in single precision at 2 GB/s."""


class Shelf:
    def __init__(self) -> None:
        self._sizes: set[int] = set()

    def seconds(self, size: int, loader: VirtualLoader, workers: int) -> float:
        """Of having the batches of `size`: `loader`, which has as many processes as that needs, loads them the first
        time."""
        if size in self._sizes:
            return _READ_S * HANDFUL * size
        self._sizes.add(size)
        began_s = loader.now_s
        for number in range(1, HANDFUL + 1):
            loader.take()
            if not workers and number >= FEWEST and loader.now_s - began_s > _LONG_S:
                break
        return loader.now_s - began_s
