"""An additive Gaussian process over knobs: what each knob does, what pairs of them do together, a curve over the batch.

Duvenaud, Nickisch & Rasmussen, "Additive Gaussian Processes" (NeurIPS 2011): functions of few inputs each, added up,
need far fewer values than one function of all of them, and say what they have learnt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dposv, dpotri
from scipy.optimize import minimize

from autotune.search.performance.repeats import NO_REPEATS, Repeats

Array = NDArray[np.float64]

_JITTER = 1e-8
_KNEES = (2.0, 8.0, 32.0, 128.0)
"""Micro-batch sizes at which half the time of a step would not depend on the batch: of small models, and of large ones
on wide devices."""
_MIDDLE = 4.0
"""Logarithm of the batch size at which a trend says nothing."""
_CURVE_LENGTH = 1.5
"""Doublings of the batch over which the curve's deviation from its prior stays alike."""
_TUNED_DOUBT = 0.7
"""How far the scales may move from their priors: the standard deviation of their logarithms."""
_FEWEST_TO_TUNE, _MOST_TO_TUNE = 6, 64


@dataclass(frozen=True, kw_only=True)
class Scales:
    """Standard deviations in logarithms before anything is measured. 0: no such effect."""

    level: float = 2.0
    """The whole: how fast this model on this machine is."""
    mains: tuple[float, ...]
    """Each knob's own effect, around what its file expects."""
    pairs: float
    """What two knobs do together beyond that."""
    knee: float = 0.0
    """The weight of each curve log(1 + knee ÷ b)."""
    trend: float = 0.0
    """A change with every doubling of the batch, the same all along."""
    curve: float = 0.0
    """A smooth deviation from those."""
    curve_by_knob: float = 0.0
    """How much that deviation differs between values of a knob."""
    accumulation: float = 0.0
    """What accumulation does to the time of a micro-batch."""
    residual: float
    """What is a configuration's own."""
    noise: float
    """Fresh processes of one configuration, beyond what their blocks show."""


class Rows(NamedTuple):
    """Configurations as numbers, a row each."""

    codes: NDArray[np.intp]
    """(rows, knobs): the index of each knob's value."""
    log2_batch: Array
    log2_accum: Array
    prior: Array
    """What is expected before anything has been measured, up to the level."""


class Fitted(NamedTuple):
    rows: Rows
    values: Array
    factor: tuple[Array, bool]
    weights: Array
    """K⁻¹ (y − prior)."""


class AdditiveProcess:
    """Gaussian process regression; `alike[k]` is the correlation matrix of the values of knob `k`."""

    def __init__(self, alike: Sequence[Array], scales: Scales) -> None:
        self._alike = list(alike)
        self._scales = scales
        self._factors = np.zeros(6)
        """Logarithms of what the scales of the groups are multiplied by."""
        self._tuned_at, self._tuned_with = 0, NO_REPEATS
        self._fitted: Fitted | None = None

    @property
    def noise(self) -> float:
        return self._scales.noise * math.exp(self._factors[5])

    @property
    def values(self) -> Array:
        """The values that it was fitted to."""
        return self._require().values

    def fit(
        self, rows: Rows, values: Array, errors: Array, runs: Array | float = 1.0, repeated: Repeats = NO_REPEATS
    ) -> None:
        """Condition on `values` with standard errors `errors`, means of `runs` each. `repeated`: what repeated runs say
        of the noise."""
        groups = self._groups(rows, rows)
        count = len(values)
        if count >= _FEWEST_TO_TUNE and (count >= 1.25 * self._tuned_at or repeated != self._tuned_with):
            some = np.linspace(0, count - 1, min(count, _MOST_TO_TUNE)).astype(int)
            part = np.stack([group[np.ix_(some, some)] for group in groups])
            told = np.stack([values - rows.prior, errors, np.broadcast_to(runs, count)])[:, some]
            self._factors = _tuned(
                part.tobytes(), told.tobytes(), self._factors.tobytes(), self._scales.noise, repeated
            ).copy()
            self._tuned_at, self._tuned_with = count, repeated
        covariance = _weighted(groups, self._factors)
        _add_to_diagonal(covariance, errors**2 + self.noise**2 / runs + _JITTER)
        factor = cho_factor(covariance, lower=True)
        self._fitted = Fitted(rows, values, factor, cho_solve(factor, values - rows.prior))

    def mean(self, rows: Rows) -> Array:
        fitted = self._require()
        return np.asarray(rows.prior + self._between(rows, fitted.rows) @ fitted.weights)

    def predict(self, rows: Rows) -> tuple[Array, Array]:
        """Mean and standard deviation of the noise-free value."""
        fitted = self._require()
        cross = self._between(rows, fitted.rows)
        mean = rows.prior + cross @ fitted.weights
        explained = np.einsum("ij,ji->i", cross, cho_solve(fitted.factor, cross.T))
        variance = np.maximum(self._own_variance(rows) - explained, 1e-10)
        return np.asarray(mean), np.sqrt(variance)

    def covariance(self, rows: Rows, others: Rows) -> Array:
        """Covariance of the noise-free values of `rows` with those of `others`, given all values of the fit."""
        fitted = self._require()
        cross, across = self._between(rows, fitted.rows), self._between(fitted.rows, others)
        return np.asarray(self._between(rows, others) - cross @ cho_solve(fitted.factor, across))

    def leave_one_out(self) -> Array:
        """Error of the prediction of each value from all others.

        Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), equations 5.10 to 5.12.
        """
        fitted = self._require()
        inverse_diagonal = np.diag(cho_solve(fitted.factor, np.eye(len(fitted.weights))))
        return np.asarray(fitted.weights / inverse_diagonal)

    def _require(self) -> Fitted:
        if self._fitted is None:
            raise ValueError("fit comes first")
        return self._fitted

    def _between(self, left: Rows, right: Rows) -> Array:
        return _weighted(self._groups(left, right), self._factors)

    def _groups(self, left: Rows, right: Rows) -> list[Array]:
        """Covariances of level, knobs, pairs, knees, curve, residual; what tuning scales is each group as a whole."""
        scales = self._scales
        shape = (len(left.log2_batch), len(right.log2_batch))
        knobs, summed, squared, together = np.zeros(shape), np.zeros(shape), np.zeros(shape), np.ones(shape)
        for number, alike in enumerate(self._alike):
            same = alike[left.codes[:, number, None], right.codes[None, :, number]]
            knobs += scales.mains[number] ** 2 * same
            summed += same
            squared += same * same
            together *= same
        # Scales of 0 are common: the optimizer has no curve, and memory none over accumulation.
        knees, curve = np.zeros(shape), np.zeros(shape)
        if scales.knee:
            for left_knee, right_knee in zip(
                _knee_curves(left.log2_batch), _knee_curves(right.log2_batch), strict=True
            ):
                knees += scales.knee**2 * np.outer(left_knee, right_knee)
        apart = left.log2_batch[:, None] - right.log2_batch[None, :]
        if scales.curve or scales.curve_by_knob:
            near = np.exp(-0.5 * (apart / _CURVE_LENGTH) ** 2)
            curve += (scales.curve**2 + scales.curve_by_knob**2 * summed / max(len(self._alike), 1)) * near
        if scales.accumulation:
            accumulated = left.log2_accum[:, None] - right.log2_accum[None, :]
            curve += scales.accumulation**2 * np.exp(-0.5 * accumulated**2)
        if scales.trend:
            curve += scales.trend**2 * np.outer(left.log2_batch - _MIDDLE, right.log2_batch - _MIDDLE)
        residual = scales.residual**2 * together * (apart == 0)
        # The sum over all pairs of knobs, from the square of the sum (Newton and Girard).
        pairs = scales.pairs**2 * (summed**2 - squared) / 2 / max(len(self._alike) - 1, 1)
        return [np.full(shape, scales.level**2), knobs, pairs, knees, curve, residual]

    def _own_variance(self, rows: Rows) -> Array:
        """Diagonal of the covariance of `rows` with themselves."""
        scales, count = self._scales, len(self._alike)
        knees = sum(curve**2 for curve in _knee_curves(rows.log2_batch))
        every = np.ones(len(rows.log2_batch))
        curve = scales.curve**2 + scales.accumulation**2 + scales.curve_by_knob**2 * count / max(count, 1)
        trend = scales.trend**2 * (rows.log2_batch - _MIDDLE) ** 2
        groups = [
            scales.level**2 * every,
            math.fsum(scale**2 for scale in scales.mains) * every,
            scales.pairs**2 * count * (count - 1) / 2 / max(count - 1, 1) * every,
            scales.knee**2 * knees,
            curve * every + trend,
            scales.residual**2 * every,
        ]
        return _weighted([np.asarray(group) for group in groups], self._factors)


class Told(NamedTuple):
    """What the scales are tuned to."""

    groups: Array
    """(groups, rows, rows): the covariance of each before it is scaled."""
    values: Array
    errors: Array
    runs: Array
    usual_noise: float
    repeated: Repeats

    def surprise(self, factors: Array) -> tuple[float, Array]:
        """How improbable these factors of the groups and of the noise are, given the values and a prior around 1 for
        each, and the gradient of that (Rasmussen & Williams, equation 5.9)."""
        # LAPACK itself: the checks around it take ten times as long as these small matrices.
        noise = self.usual_noise * math.exp(factors[5])
        covariance = _weighted(self.groups, factors)
        _add_to_diagonal(covariance, self.errors**2 + noise**2 / self.runs + _JITTER)
        lower, solved, failed = dposv(covariance, self.values, lower=1)
        if failed:
            raise np.linalg.LinAlgError("the covariance is not positive definite")
        misfit = self.values @ solved / 2 + np.log(np.diag(lower)).sum()
        prior = (factors**2).sum() / (2 * _TUNED_DOUBT**2)
        inverse, _ = dpotri(lower, lower=1)
        left = 2 * np.tril(inverse) - np.outer(solved, solved)  # its other half is the same
        _add_to_diagonal(left, -np.diag(inverse))
        gradient = factors / _TUNED_DOUBT**2
        gradient[:5] += np.exp(2 * factors[:5]) * (self.groups[1:].reshape(5, -1) @ left.ravel())
        gradient[5] += noise**2 * (np.diag(left) / self.runs).sum() - self.repeated.slope(noise)
        return float(misfit - self.repeated.log_likelihood(noise) + prior), gradient


@lru_cache(maxsize=64)  # most fits differ from the one before in what one process of several is told
def _tuned(groups: bytes, told: bytes, start: bytes, usual_noise: float, repeated: Repeats) -> Array:
    """The most probable factors of the groups and of the noise. `told`: values, errors and runs, a row each."""
    values, errors, runs = np.frombuffer(told).reshape(3, -1)
    covariances = np.frombuffer(groups).reshape(-1, len(values), len(values))
    surprise = Told(covariances, values, errors, runs, usual_noise, repeated).surprise
    start_at = np.frombuffer(start)
    bounds = [(-2.0, 2.0)] * len(start_at)
    found = minimize(surprise, start_at, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 15})
    return np.asarray(found.x)


def _weighted(groups: Sequence[Array] | Array, factors: Array) -> Array:
    scaled = np.exp(2 * factors[: len(groups) - 1])
    whole: Array = groups[0].copy()
    for group, scale in zip(groups[1:], scaled, strict=True):
        whole += scale * group
    return whole


def _add_to_diagonal(matrix: Array, values: Array) -> None:
    """In place."""
    matrix.flat[:: len(matrix) + 1] += values


def _knee_curves(log2_batch: Array) -> list[Array]:
    return [np.log1p(knee / np.exp2(log2_batch)) for knee in _KNEES]
