"""Where a handful of noisy values lie, whose noise is not known: a posterior on grids, with no random numbers in it.

Values are logarithms of rates. Each comes with normal noise of a scale τ that has to be inferred, or, now and then, from
a run that other work slowed down by a third or by half. For a location there is no prior; for ln τ a wide one: flat from
0.1 % to 15 %, then falling, so that two values that happen to agree do not mean that nothing varies, and two that differ
by 10 % do not leave a noise of 60 % open, which no machine that anybody measures on has. What is known of τ from other
series of the same machine sharpens that prior (`Scale`): the idea of limma's moderated variance (Smyth, Statistical
Applications in Genetics and Molecular Biology 3, 2004), with mixtures in place of inverse gammas, since one prior of
fixed scale and degrees of freedom cannot serve both 0.2 % and 25 % of noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

Values = np.ndarray

_LARGEST, _COUNT = 1.2, 23
SCALES = _LARGEST * np.sqrt(2.0) ** np.arange(1 - _COUNT, 1)
"""From 0.06 %; each twice the variance of the one before."""
_LOG_SCALES = np.log(SCALES)
_USUAL_AT_MOST, _FALLS = 0.15, 0.6
"""Noise up to which all scales are equally likely, and the standard deviation of ln τ beyond it."""
_ALIKE, _UNLIKE, _UNLIKE_SHARE = 0.15, 0.8, 0.2
"""Standard deviations of ln(τ of one series ÷ of another): most have the same noise, one in five has its own."""
_ROUNDS_ADD, _ROUNDS_RULE, _RULE_SHARE = 0.8, 2.5, 0.3
"""Mean of ln(τ of one configuration over the rounds ÷ τ inside a round): where rounds add to the noise, and where they
are most of it, as on a device that is steady but for its temperature; how often that is."""
_OUTLIERS, _OUTLIER_SCALE, _SLOW = 0.06, 0.4, 0.85
"""Share of runs that other work hits, by how much in log-units, and how many of those it slows down."""
_TAIL_FREEDOM = 2.0
"""Degrees of freedom of the outliers' Student density: some runs are ten times slower."""

_TINIEST = 1e-300
_NEGLIGIBLE = 1e-4
_AT_ONCE = 40


def _kernels() -> tuple[Values, Values, Values]:
    """Prior of a scale; how likely each (row) is given that of a like series (column); the same, given the scale inside
    rounds, of a series that holds the rounds' own variation as well."""
    over = np.maximum(_LOG_SCALES - math.log(_USUAL_AT_MOST), 0) / _FALLS
    apart = _LOG_SCALES[:, None] - _LOG_SCALES[None, :]
    near, far = (np.exp(-0.5 * (apart / width) ** 2) / width for width in (_ALIKE, _UNLIKE))
    alike = (1 - _UNLIKE_SHARE) * near + _UNLIKE_SHARE * far
    adding, ruling = (np.exp(-np.maximum(apart, 0) / mean) / mean for mean in (_ROUNDS_ADD, _ROUNDS_RULE))
    below = np.exp(-0.5 * (np.minimum(apart, 0) / _ALIKE) ** 2)
    above = below * ((1 - _RULE_SHARE) * adding + _RULE_SHARE * ruling)
    return -0.5 * over**2, alike / alike.sum(axis=0), above / above.sum(axis=0)


_LOG_PRIOR, _ALIKE_GIVEN, _OVER_ROUNDS_GIVEN = _kernels()


@dataclass(frozen=True, slots=True)
class Scale:
    """What is known of a noise scale: logarithm of the density, on `SCALES`."""

    log_density: Values

    @classmethod
    def unknown(cls) -> Scale:
        return cls(_LOG_PRIOR)

    def learnt_from(self, series: Values, runs: int = 1) -> Scale:
        """Sharpened by a series whose noise is most likely the same; nothing below two values.

        `runs`: from how many each value is made, scaled so that its noise is that of one: the more, the more often one
        of them is an outlier, and the less that one counts.
        """
        if len(series) < 2:
            return self
        likelihood = _scale_likelihood(series, 1 - (1 - _OUTLIERS) ** runs, _outlier_scale(runs))
        return Scale(self.log_density + _log(_ALIKE_GIVEN.T @ likelihood))

    def of_another(self) -> Scale:
        """Of another series of the same machine."""
        return Scale(_log(_ALIKE_GIVEN @ self.density()))

    def over_rounds(self) -> Scale:
        """Of a series that holds what differs between rounds as well as inside them."""
        return Scale(_log(_OVER_ROUNDS_GIVEN @ self.density()))

    def middle(self) -> float:
        density = self.density()
        share = (np.cumsum(density) - density / 2) / density.sum()
        return math.exp(float(np.interp(0.5, share, _LOG_SCALES)))

    def density(self) -> Values:
        """On `SCALES`, relative to its peak."""
        return np.asarray(np.exp(self.log_density - self.log_density.max()))


@dataclass(frozen=True, slots=True)
class Posterior:
    """A density as shares of probability at places, in ascending order."""

    places: Values
    shares: Values
    noise: Scale
    """Of one value: what the values and all else say of it."""

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

    def times(self, factor: float) -> Posterior:
        """Of that many times the location; the noise stays that of one value."""
        return Posterior(factor * self.places, self.shares, self.noise)

    def widened(self, factor: float) -> Posterior:
        """Spread about its middle."""
        (middle,) = self.quantiles(0.5)
        return Posterior(middle + factor * (self.places - middle), self.shares, self.noise)

    def of_one_more(self, own_error: float) -> Posterior:
        """Where one more value lies that is no outlier, and is itself known to `own_error`, a standard deviation."""
        scales, density = np.hypot(SCALES, own_error), self.noise.density()
        return self._blurred(scales, density / density.sum())

    def less(self, other: Posterior) -> Posterior:
        """Of the difference of the two locations, taken as independent."""
        (middle,) = self.quantiles(0.5)
        across = self.places[:, None] - other.places[None, :]
        shares = self.shares[:, None] * other.shares[None, :]
        places = np.unique(np.concatenate([self.places - other.quantiles(0.5)[0], middle - other.places]))
        order = np.argsort(across, axis=None)
        below = np.interp(places, across.ravel()[order], np.cumsum(shares.ravel()[order]))
        return Posterior(*_from_cumulated(places, below), self.noise)

    def _blurred(self, scales: Values, density: Values) -> Posterior:
        """With normal noise added, of one of these scales."""
        widest = 6 * max(scales[density > _NEGLIGIBLE])
        finest = widest / 2000
        steps = np.geomspace(finest, widest, 40)
        (middle,) = self.quantiles(0.5)
        places = np.unique(np.concatenate([middle - steps, [middle], middle + steps, self.places]))
        normal = ndtr((places[:, None, None] - self.places[None, :, None]) / scales)
        below = np.einsum("pqs,q,s->p", normal, self.shares, density)
        return Posterior(*_from_cumulated(places, below), self.noise)

    def _cumulated(self) -> tuple[Values, Values]:
        inner = (self.places[1:] + self.places[:-1]) / 2
        return np.concatenate([self.places[:1], inner, self.places[-1:]]), np.concatenate([[0], np.cumsum(self.shares)])


def locate(values: Values, scale: Scale, *, runs: int = 1, slow_only: bool = False) -> Posterior:
    """Where the values lie, given what is known of their noise. Needs one value.

    `runs`: from how many each value is made (`Scale.learnt_from`). `slow_only`: an outlier lies below the rest, as the
    rate of a run does that other work slowed down; else, as their differences do, on either side.
    """
    places = _places(values)
    outliers = 1 - (1 - _OUTLIERS) ** runs
    slow = _SLOW if slow_only else 0.5
    logs = _log_likelihood(values, places, outliers, _outlier_scale(runs), slow) + scale.log_density
    joint = np.exp(logs - logs.max()) * _widths(places)[:, None]
    shares = joint.sum(axis=1)
    return Posterior(places, shares / shares.sum(), Scale(_log(joint.sum(axis=0))))


def _from_cumulated(places: Values, below: Values) -> tuple[Values, Values]:
    """Places and shares of a posterior whose probability below each of `places` is given."""
    return (places[1:] + places[:-1]) / 2, np.diff(below) / (below[-1] - below[0])


def _outlier_scale(runs: int) -> float:
    """Of the contrast of one run with `runs` − 1 others, divided by its standard deviation for unit noise."""
    return _OUTLIER_SCALE * (math.sqrt((runs - 1) / runs) if runs > 1 else 1.0)


def _scale_likelihood(values: Values, outliers: float, outlier_scale: float) -> Values:
    """Of each scale, wherever the values lie; the largest is of the order of 1."""
    places = _places(values)
    logs = _log_likelihood(values, places, outliers, outlier_scale, 0.5)
    return np.asarray(np.exp(logs - logs.max()).T @ _widths(places))


def _log_likelihood(values: Values, places: Values, outliers: float, outlier_scale: float, slow: float) -> Values:
    """Of the values, for each place (row) and scale (column)."""
    if len(values) > _AT_ONCE:  # their product would leave the range of a float
        parts = np.array_split(values, math.ceil(len(values) / _AT_ONCE))
        return np.asarray(sum(_log_likelihood(part, places, outliers, outlier_scale, slow) for part in parts))
    apart = values[None, :] - places[:, None]
    squares = apart * apart
    tail = (1 + squares / (_TAIL_FREEDOM * outlier_scale**2)) ** (-(_TAIL_FREEDOM + 1) / 2)
    tail *= outliers * np.where(apart < 0, slow, 1 - slow) / (math.sqrt(2) * outlier_scale)
    normal = np.empty((_COUNT, *apart.shape))
    normal[-1] = np.exp(-0.5 * squares / _LARGEST**2)
    for number in range(_COUNT - 1, 0, -1):  # half the variance: the square
        np.multiply(normal[number], normal[number], out=normal[number - 1])
    normal *= ((1 - outliers) / (SCALES * math.sqrt(2 * math.pi)))[:, None, None]
    normal += tail
    return np.asarray(np.log(normal.prod(axis=2)).T)


def _places(values: Values) -> Values:
    """Where a density may have its peaks: close to each value, or to a few of many, and to their middle."""
    middle = float(np.median(values))
    peaks = np.quantile(values, np.linspace(0, 1, min(len(values), 5)))
    peaks = np.concatenate([peaks, [values.mean(), middle]])
    offsets = np.geomspace(1e-4, 1.5, 18)
    usual = max(1.4826 * float(np.median(np.abs(values - middle))), float(values.std()) / 3, 2e-4)
    close = middle + np.linspace(-6, 6, 37) * usual / math.sqrt(len(values))
    around = [(peaks[:, None] + sign * offsets).ravel() for sign in (-1, 1)]
    return np.unique(np.concatenate([peaks, close, *around]))


def _widths(places: Values) -> Values:
    """Of the trapezoid rule."""
    gaps = np.diff(places)
    return np.concatenate([gaps[:1], gaps[1:] + gaps[:-1], gaps[-1:]]) / 2


def _log(density: Values) -> Values:
    return np.log(density / density.max() + _TINIEST)
