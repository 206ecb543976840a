"""Images of classes that a network can learn, made from a seed by NumPy alone.

A class is a smooth random pattern of colours. Each of its images is that pattern, shifted at random, with added noise.
A tenth of the labels is wrong, so that the loss settles near a known minimum (0.50 for ten classes). At zero, relative
differences of losses would mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

GENERATOR_VERSION = 1
"""Increase it with any change that alters an image or a label: it identifies cached images."""
WRONG_LABELS = 0.1
_COARSE = 4
_PATTERN_LEVELS, _NOISE_LEVELS = 216, 40
"""Their sum stays below 256, so that bytes can be added without overflow."""


@dataclass(frozen=True, kw_only=True)
class Patterns:
    """`len()` images of `size` × `size` pixels; image i is always the same."""

    templates: NDArray[np.uint8]
    """(classes, size, size, 3)"""
    noise: NDArray[np.uint8]
    """Flat; each image uses a part of it, which costs a hundredth of drawing new noise."""
    sources: NDArray[np.int64]
    """The class whose pattern each image shows."""
    labels: NDArray[np.int64]
    """The class that each image is labelled with."""
    shifts: NDArray[np.int64]
    """(samples, 2): pixels down and right."""
    stretches: NDArray[np.int64]
    """Where each image's noise begins."""

    @classmethod
    def generate(cls, *, samples: int, classes: int, size: int, seed: int) -> Self:
        rng = np.random.default_rng([GENERATOR_VERSION, seed])
        pixels = size * size * 3
        sources = np.arange(samples) % classes
        wrong = rng.random(samples) < WRONG_LABELS
        return cls(
            templates=np.stack([_smooth(rng.random((_COARSE, _COARSE, 3)), size) for _ in range(classes)]),
            noise=rng.integers(0, _NOISE_LEVELS, 3 * pixels, dtype=np.uint8),
            sources=sources,
            labels=np.where(wrong, rng.integers(0, classes, samples), sources),
            shifts=rng.integers(0, size, (samples, 2)),
            stretches=rng.integers(0, 2 * pixels, samples),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, position: int) -> NDArray[np.uint8]:
        """(size, size, 3) RGB."""
        template = self.templates[self.sources[position]]
        down, right = self.shifts[position]
        start = self.stretches[position]
        noise = self.noise[start : start + template.size].reshape(template.shape)
        shown: NDArray[np.uint8] = np.roll(template, (down, right), axis=(0, 1)) + noise
        return shown

    def label(self, position: int) -> int:
        return int(self.labels[position])


def _smooth(coarse: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """A coarse grid of colours in [0, 1), interpolated to `size` × `size` on a torus, so that shifts show no seam."""
    position = np.arange(size) * (_COARSE / size)
    distance = np.abs(position[:, None] - np.arange(_COARSE))
    weights = np.clip(1 - np.minimum(distance, _COARSE - distance), 0, None)
    # einsum, because a matrix product would start the threads of the BLAS library in a process that will be forked.
    rows = np.einsum("ya,abc->ybc", weights, coarse)
    levels: NDArray[np.float64] = np.einsum("xb,ybc->yxc", weights, rows) * _PATTERN_LEVELS
    return levels.astype(np.uint8)
