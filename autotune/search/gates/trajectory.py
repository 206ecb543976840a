"""The losses of one run over the samples that it has learnt from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from autotune.records import TrialResult


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One entry for each optimizer step that was taken; one that the GradScaler skipped taught nothing."""

    losses: Sequence[float]
    samples: Sequence[int]

    @classmethod
    def of(cls, run: TrialResult) -> Trajectory:
        steps = run.steps
        if steps is None:
            return cls((), ())
        taken = [index for index, skipped in enumerate(steps.skipped) if not skipped]
        return cls([steps.losses[index] for index in taken], [steps.samples[index] for index in taken])

    @property
    def seen(self) -> int:
        return sum(self.samples)

    def mean_loss(self, begin: float, end: float) -> float:
        """Mean loss per sample over the samples `begin` … `end`; a step that straddles an end counts with its share.

        NaN where the run saw none of them.
        """
        total, weight, position = 0.0, 0.0, 0
        for loss, samples in zip(self.losses, self.samples, strict=True):
            inside = min(position + samples, end) - max(position, begin)
            position += samples
            if inside > 0:
                total += loss * inside
                weight += inside
        return total / weight if weight else math.nan

    def windows(self, count: int, end: float) -> list[float]:
        """Mean losses of `count` equal windows over the samples 0 … `end`."""
        edges = [end * index / count for index in range(count + 1)]
        return [self.mean_loss(begin, until) for begin, until in itertools.pairwise(edges)]
