"""How likely a configuration meets the constraints on measures: one process per constraint, over its violation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from autotune.search.performance.encoding import Encoded, Encoding
from autotune.search.performance.process import AdditiveProcess, Array, Scales

_LARGEST = 2.0
"""Violations beyond it, relative to the limit, are all the same to what is near the limit."""
_ERROR = 0.02


class LimitModel:
    """Learns from the violations of finished trials; at most 0 where a constraint is met."""

    def __init__(
        self, encoding: Encoding, *, expected: float = 0.0, knob_doubt: float = 0.3, batch_doubt: float = 0.5
    ) -> None:
        """`expected`: the violation if nothing is known. The doubts: how far knobs and the batch change it."""
        self._encoding = encoding
        self._expected = expected
        self._knob_doubt, self._batch_doubt = knob_doubt, batch_doubt
        self._processes: list[AdditiveProcess] = []

    def fit(self, encoded: Encoded, violations: Sequence[Sequence[float]]) -> None:
        """`violations`: for each row, those of all constraints in the same order."""
        columns = np.clip(np.array(violations, dtype=float).T, -_LARGEST, _LARGEST) - self._expected
        while len(self._processes) < len(columns):
            self._processes.append(AdditiveProcess(self._encoding.alike, self._scales()))
        for process, column in zip(self._processes, columns, strict=False):
            process.fit(encoded.for_limit(), column, np.full(len(column), _ERROR))

    def probability_to_meet(self, encoded: Encoded) -> Array:
        """Probability to meet all of them; 1 if there are none."""
        chances = np.ones(len(encoded))
        for process in self._processes:
            mean, doubt = process.predict(encoded.for_limit())
            chances *= ndtr(-(mean + self._expected) / doubt)
        return chances

    def _scales(self) -> Scales:
        knobs = len(self._encoding.alike)
        return Scales(
            level=1.0,
            mains=(self._knob_doubt,) * knobs,
            pairs=0.1,
            trend=0.4,
            curve=self._batch_doubt,
            curve_by_knob=0.3,
            accumulation=0.5,
            residual=0.02,
            noise=0.03,
        )
