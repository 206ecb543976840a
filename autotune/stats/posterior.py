"""Where a handful of noisy values lie: a posterior on a grid, with no prior for the place and no random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr

from autotune.stats.likelihood import SCALES, Values, likely_places, log_likelihood, widths
from autotune.stats.noise import Scale

_NEGLIGIBLE = 1e-4
_TAILS = np.array([0.0, 1e-4, 1e-3, 0.004, 0.012, 0.03])
_LEVELS = np.concatenate([_TAILS, np.linspace(0.06, 0.94, 23), 1 - _TAILS[::-1]])
"""Levels of probability: places between them stand for a whole posterior."""


@dataclass(frozen=True, slots=True)
class Posterior:
    """A density as shares of probability at places, in ascending order."""

    places: Values
    shares: Values
    noise: Scale
    """The noise of one value: what the values and all else say of it."""

    @classmethod
    def of_one(cls, value: float, noise: Scale, own_error: float) -> Posterior:
        """From a single value, which differs from the next by `noise` and is itself known to `own_error`."""
        return cls(np.array([value]), np.array([1.0]), noise).of_one_more(own_error)

    def quantiles(self, *levels: float) -> list[float]:
        edges, below = self._cumulated()
        return [float(value) for value in np.interp(levels, below, edges)]

    def below(self, place: float) -> float:
        edges, below = self._cumulated()
        return float(np.interp(place, edges, below))

    def expected_loss(self) -> float:
        """E[max(0, −location)]: of a logarithm of a ratio, what is lost on average by the one that was preferred."""
        return float(-(self.shares * np.minimum(self.places, 0.0)).sum())

    def times(self, factor: float) -> Posterior:
        """The posterior of that many times the location; the noise stays that of one value."""
        if factor < 0:
            return Posterior(factor * self.places[::-1], self.shares[::-1], self.noise)
        return Posterior(factor * self.places, self.shares, self.noise)

    def moved(self, by: float) -> Posterior:
        return Posterior(self.places + by, self.shares, self.noise)

    def widened(self, factor: float) -> Posterior:
        """Spread about its middle."""
        (middle,) = self.quantiles(0.5)
        return Posterior(middle + factor * (self.places - middle), self.shares, self.noise)

    def of_one_more(self, own_error: float) -> Posterior:
        """Where one more value lies that is no outlier, and is itself known to `own_error`, a standard deviation."""
        scales, density = np.hypot(SCALES, own_error), self.noise.density()
        return self._blurred(scales, density / density.sum())

    def less(self, other: Posterior) -> Posterior:
        """The posterior of the difference of the two locations, taken as independent."""
        (middle,) = self.quantiles(0.5)
        across = self.places[:, None] - other.places[None, :]
        shares = self.shares[:, None] * other.shares[None, :]
        places = np.unique(np.concatenate([self.places - other.quantiles(0.5)[0], middle - other.places]))
        order = np.argsort(across, axis=None)
        below = np.interp(places, across.ravel()[order], np.cumsum(shares.ravel()[order]))
        return Posterior(*_from_cumulated(places, below), self.noise)

    def _blurred(self, scales: Values, density: Values) -> Posterior:
        """With normal noise added, of one of these scales."""
        levels = (_LEVELS[1:] + _LEVELS[:-1]) / 2
        centres, (middle,) = np.array(self.quantiles(*levels)), self.quantiles(0.5)
        widest = 6 * max(scales[density > _NEGLIGIBLE]) + max(abs(centres - middle))
        steps = np.geomspace(widest / 5000, widest, 60)
        places = np.concatenate([middle - steps[::-1], [middle], middle + steps])
        normal = ndtr((places[:, None, None] - centres[None, :, None]) / scales)
        below = np.einsum("pqs,q,s->p", normal, np.diff(_LEVELS), density)
        return Posterior(*_from_cumulated(places, below), self.noise)

    def _cumulated(self) -> tuple[Values, Values]:
        inner = (self.places[1:] + self.places[:-1]) / 2
        return np.concatenate([self.places[:1], inner, self.places[-1:]]), np.concatenate([[0], np.cumsum(self.shares)])


def locate(values: Values, scale: Scale, *, runs: int = 1, slow_only: bool = False) -> Posterior:
    """Where the values lie, given what is known of their noise. Needs one value.

    `runs`, `slow_only`: as of `log_likelihood`.
    """
    return _locate(values.tobytes(), scale.log_density.tobytes(), runs, slow_only)


@lru_cache(maxsize=1024)  # most are the same after the next run
def _locate(series: bytes, log_density: bytes, runs: int, slow_only: bool) -> Posterior:
    values = np.frombuffer(series)
    places = likely_places(values)
    logs = log_likelihood(values, places, runs=runs, slow_only=slow_only) + np.frombuffer(log_density)
    joint = np.exp(logs - logs.max()) * widths(places)[:, None]
    shares = joint.sum(axis=1)
    return Posterior(places, shares / shares.sum(), Scale.of_density(joint.sum(axis=0)))


def _from_cumulated(places: Values, below: Values) -> tuple[Values, Values]:
    """Places and shares of a posterior whose probability below each of `places` is given."""
    return (places[1:] + places[:-1]) / 2, np.diff(below) / (below[-1] - below[0])
