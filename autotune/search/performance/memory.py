"""Peak memory, about m0 + m1(cell)·b, and its limit, which is approached from below."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr

from autotune.search.performance.encoding import Encoded, Encoding
from autotune.search.performance.observation import Observation
from autotune.search.performance.process import AdditiveProcess, Array, Scales

_STATIC_SHARE = 0.6
"""Share of the memory of a single trial, taken not to grow with the batch, until two trials tell."""
_USABLE = 0.95
"""Share of a device's memory: the rest is its driver's, other processes', and lost between blocks."""
_NOISE = 0.03
_LEAST_DOUBT = 0.02
"""Doubt about the logarithm of a predicted peak: two processes of one configuration differ by as much."""
_LARGEST_ERROR = 1.5
"""Error of the logarithm of what a sample adds, where the noise of the whole is larger than all that the batch adds."""
_UNTOLD_ERROR = 0.6
"""The same where all trials had one batch size, and nothing tells what is static."""
_NO_LESS = 0.98
"""Share of the predicted peak of a trial that ran out: what needs as much will run out too."""
_WALL_STEPS = 9
_RISK = (0.4, 0.6, 0.95)
"""Least probability to fit of a trial that may be proposed, after 0, 1, 2 and more trials that ran out."""


class MemoryModel:
    """Learns from the peaks of trials that fitted. From those that did not it learns that the limit is below their
    demand."""

    def __init__(self, encoding: Encoding, limit_bytes: float) -> None:
        scales = Scales(
            mains=encoding.memory_doubts,
            pairs=0.02,
            knee=0.02,
            curve=0.03,
            curve_by_knob=0.02,
            residual=0.02,
            noise=_NOISE,
        )
        self._process = AdditiveProcess(encoding.alike, scales)
        self._limit_bytes = limit_bytes * _USABLE
        self._static_bytes = 0.0
        self._wall: tuple[float, float] = (0.0, 0.0)
        self._failures: Encoded | None = None
        self._highest = 0.0
        self._known = False

    def fit(self, encoded: Encoded, seen: list[Observation]) -> None:
        """`encoded`: a row for each of `seen`. Trials without a memory measurement count only if they ran out of it."""
        fitted = [n for n, one in enumerate(seen) if one.has_step and one.memory_bytes]
        failed = [n for n, one in enumerate(seen) if one.is_oom]
        self._failures = encoded.take(failed) if failed else None
        self._known = bool(fitted)
        if not fitted:
            return
        rows, used = encoded.take(fitted), np.array([float(seen[n].memory_bytes or 0) for n in fitted])
        self._static_bytes = _static_bytes(rows.batch, used)
        grown = np.maximum(used - self._static_bytes, 0.01 * used)
        errors = np.minimum(_NOISE * used / grown, _LARGEST_ERROR)
        if len(set(rows.batch)) == 1:
            errors = np.full(len(used), _UNTOLD_ERROR)
        self._process.fit(rows.for_memory(), np.log(grown / rows.batch), errors)
        highest = self._highest = float(used.max())
        lowest = min([self._limit_bytes, *(self._peak_bytes(encoded.take(failed)) if failed else ())])
        self._wall = (min(highest, lowest), max(lowest, 1.01 * highest))

    def probability_to_fit(self, encoded: Encoded) -> Array:
        """Probability for each row. 0 if it needs no less than a trial that ran out of memory."""
        if not self._known:
            return self._below_failures(encoded)
        growth, doubt = self._process.predict(encoded.for_memory())
        grown = np.exp(growth) * encoded.batch
        peak = self._static_bytes + grown
        doubt = np.maximum(doubt * grown / peak, _LEAST_DOUBT)
        low, high = self._wall
        walls = np.linspace(low, high, _WALL_STEPS) if self._failures is not None else np.array([high])
        chances = ndtr((np.log(walls)[None, :] - np.log(peak)[:, None]) / doubt[:, None]).mean(axis=1)
        for failed in self._failures.each() if self._failures is not None else ():
            needs = peak >= _NO_LESS * self._peak_bytes(failed)
            larger = (encoded.batch >= failed.batch) & (encoded.workers >= failed.workers)
            chances = np.where(encoded.asks_for_no_less(failed) | (larger & needs), 0.0, chances)
        return np.asarray(chances)

    def _below_failures(self, encoded: Encoded) -> Array:
        """If no trial measured its memory: every configuration that is smaller than those that ran out of it."""
        smallest = math.inf if self._failures is None else float(self._failures.batch.min())
        return np.where(encoded.batch < smallest, 1.0, 0.0)

    @property
    def has_ended(self) -> bool:
        """Whether a trial has run out of memory."""
        return self._failures is not None

    @property
    def failures(self) -> int:
        """How many trials have run out of memory."""
        return 0 if self._failures is None else len(self._failures)

    @property
    def least_probability(self) -> float:
        """A configuration below this probability is not worth the risk. It rises with the trials that ran out of
        memory."""
        return _RISK[min(self.failures, len(_RISK) - 1)]

    @property
    def wall_bytes(self) -> tuple[float, float] | None:
        """What fitted at most, and what is predicted of the least that did not; None as long as nothing has run out, or
        where the two cross, because memory is not all that a trial's own figures show."""
        low, high = self._wall
        return self._wall if self._failures is not None and self._known and low == self._highest < high else None

    def _peak_bytes(self, encoded: Encoded) -> Array:
        return np.asarray(self._static_bytes + np.exp(self._process.mean(encoded.for_memory())) * encoded.batch)


def _static_bytes(batch: Array, used: Array) -> float:
    """Intercept of a robust line through (batch, bytes), with the lowest usage seen at each batch size."""
    lowest = {size: float(used[batch == size].min()) for size in sorted(set(batch.tolist()))}
    least = min(lowest.values())
    if len(lowest) == 1:
        return _STATIC_SHARE * least
    sizes = list(lowest)
    slopes = [
        (lowest[large] - lowest[small]) / (large - small)
        for place, small in enumerate(sizes)
        for large in sizes[place + 1 :]
    ]
    slope = max(float(np.median(slopes)), 0.0)
    intercept = float(np.median([lowest[size] - slope * size for size in sizes]))
    return min(max(intercept, 0.0), 0.98 * least) if math.isfinite(intercept) else _STATIC_SHARE * least
