"""The stored batches of each size on which steps are measured alone: the time to get them."""

from __future__ import annotations

from autotune.execution.simulated.loader import VirtualLoader
from autotune.measure.ready import FEWEST, HANDFUL, LONG_S

_READ_S = 0.3e-3
"""For each sample: a picture of 224² in single precision at 2 GB/s."""


class Shelf:
    def __init__(self) -> None:
        self._sizes: set[int] = set()

    def seconds(self, size: int, loader: VirtualLoader, workers: int) -> float:
        """Seconds to get the batches of `size`. The first time, `loader` loads them, with as many processes as that
        needs."""
        if size in self._sizes:
            return _READ_S * HANDFUL * size
        self._sizes.add(size)
        began_s = loader.now_s
        for number in range(1, HANDFUL + 1):
            loader.take()
            if not workers and number >= FEWEST and loader.now_s - began_s > LONG_S:
                break
        return loader.now_s - began_s
