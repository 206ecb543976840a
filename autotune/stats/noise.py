"""How much the runs of a machine differ, from a handful of noisy values: a density over noise scales, on a grid.

Values are logarithms of rates. Each comes with normal noise of a scale τ that has to be inferred, or, now and then,
from a run that other work slowed down by a third or by half. The prior on ln τ is wide: flat from 0.06 % to 22 %, then
falling, so that two values that happen to agree do not mean that nothing varies, and two that differ by 10 % do not
leave a noise of 60 % open, which no machine that anybody measures on has. What is known of τ from other series of the
same machine sharpens that prior: the idea of limma's moderated variance (Smyth, Statistical Applications in Genetics
and Molecular Biology 3, 2004), with mixtures in place of inverse gammas, since one prior of fixed scale and degrees of
freedom cannot serve both 0.2 % and 25 % of noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from autotune.stats.likelihood import SCALES, Values, likely_places, log_likelihood, widths

_LOG_SCALES = np.log(SCALES)
_USUAL_AT_MOST, _FALLS = 0.22, 0.6
"""Noise up to which all scales are equally likely, and the standard deviation of ln τ beyond it."""
_ALIKE, _UNLIKE, _UNLIKE_SHARE = 0.4, 0.8, 0.2
"""Standard deviations of ln(τ of one series ÷ of another): most have about the same noise, one in five has its own."""
_NO_LESS = 0.15
"""The same, of how far the noise over rounds may seem to fall below that inside them."""
_ROUNDS_ADD, _ROUNDS_RULE, _RULE_SHARE = 0.8, 2.5, 0.3
"""Mean of ln(τ of one configuration over the rounds ÷ τ inside a round): where rounds add to the noise, and where they
are most of it, as on a device that is steady but for its temperature; how often that is."""
_ADD_NOTHING = 0.5
"""How often rounds of two add nothing at all. Without it sums that differ by little would say that noise is small, and
those that differ by much would be put down to the rounds: by chance alone, the noise would seem too small."""
_TINIEST = 1e-300


def _kernels() -> tuple[Values, Values, Values, Values]:
    """Prior of a scale; how likely each (row) is given that of a like series (column); the same, given the scale inside
    rounds, of a series that holds the rounds' own variation as well; the same where there may be none."""
    over = np.maximum(_LOG_SCALES - math.log(_USUAL_AT_MOST), 0) / _FALLS
    apart = _LOG_SCALES[:, None] - _LOG_SCALES[None, :]
    near, far = (np.exp(-0.5 * (apart / width) ** 2) / width for width in (_ALIKE, _UNLIKE))
    alike = (1 - _UNLIKE_SHARE) * near + _UNLIKE_SHARE * far
    adding, ruling = (np.exp(-np.maximum(apart, 0) / mean) / mean for mean in (_ROUNDS_ADD, _ROUNDS_RULE))
    below = np.exp(-0.5 * (np.minimum(apart, 0) / _NO_LESS) ** 2)
    above = below * ((1 - _RULE_SHARE) * adding + _RULE_SHARE * ruling)
    above /= above.sum(axis=0)
    same = np.exp(-0.5 * (apart / _NO_LESS) ** 2)
    maybe = (1 - _ADD_NOTHING) * above + _ADD_NOTHING * same / same.sum(axis=0)
    return -0.5 * over**2, alike / alike.sum(axis=0), above, maybe


_LOG_PRIOR, _ALIKE_GIVEN, _OVER_ROUNDS_GIVEN, _MAYBE_OVER_ROUNDS_GIVEN = _kernels()


@dataclass(frozen=True, slots=True)
class Scale:
    """What is known of a noise scale: logarithm of the density, on `SCALES`."""

    log_density: Values

    @classmethod
    def unknown(cls) -> Scale:
        return cls(_LOG_PRIOR)

    @classmethod
    def of_density(cls, density: Values) -> Scale:
        return cls(_log(density))

    def learnt_from(self, series: Values, runs: int = 1) -> Scale:
        """Sharpened by a series whose noise is most likely the same, wherever it lies; nothing below two values.

        `runs`: as of `log_likelihood`.
        """
        if len(series) < 2:
            return self
        return Scale(self.log_density + _log(_ALIKE_GIVEN.T @ _likelihood(series, runs)))

    def learnt_over_rounds(self, series: Values, runs: int = 1) -> Scale:
        """Sharpened by a series whose noise is most likely the same, and that holds what may differ between rounds too.

        `runs`: as of `log_likelihood`.
        """
        if len(series) < 2:
            return self
        inside = _MAYBE_OVER_ROUNDS_GIVEN.T @ _likelihood(series, runs)
        return Scale(self.log_density + _log(_ALIKE_GIVEN.T @ inside))

    def learnt_from_deviation(self, value: float, runs: int = 1) -> Scale:
        """Sharpened by one more value of this very series, as its distance from where the others lie, scaled so that
        its noise is that of one value. Of another kind of run, it tells of the noise, and not of the place."""
        return Scale(self.log_density + log_likelihood(np.array([value]), np.zeros(1), runs=runs)[0])

    def of_another(self) -> Scale:
        """What is known of another series of the same machine."""
        return Scale(_log(_ALIKE_GIVEN @ self.density()))

    def over_rounds(self) -> Scale:
        """What is known of a series that holds what differs between rounds as well as inside them."""
        return Scale(_log(_OVER_ROUNDS_GIVEN @ self.density()))

    def middle(self) -> float:
        density = self.density()
        share = (np.cumsum(density) - density / 2) / density.sum()
        return math.exp(float(np.interp(0.5, share, _LOG_SCALES)))

    def root_mean_square(self) -> float:
        """What the variance is on average over all that it may be: more than the middle while little is known."""
        density = self.density()
        return math.sqrt(float((density * SCALES**2).sum() / density.sum()))

    def density(self) -> Values:
        """On `SCALES`, relative to its peak."""
        return np.asarray(np.exp(self.log_density - self.log_density.max()))


def _likelihood(series: Values, runs: int) -> Values:
    """How likely each of `SCALES` is given the series, wherever that lies, but for a constant."""
    return _likelihood_of(series.tobytes(), runs)


@lru_cache(maxsize=1024)  # most series are the same after the next run
def _likelihood_of(series: bytes, runs: int) -> Values:
    values = np.frombuffer(series)
    places = likely_places(values)
    logs = log_likelihood(values, places, runs=runs)
    return np.asarray(np.exp(logs - logs.max()).T @ widths(places))


def _log(density: Values) -> Values:
    return np.asarray(np.log(density / density.max() + _TINIEST))
