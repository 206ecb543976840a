"""A sample of a space in which all values of a knob are about equally frequent."""

from __future__ import annotations

from scipy.stats import qmc

from autotune.config import TrainConfig
from autotune.search import Space

_MOST_DRAWS = 50


def stratified(space: Space, count: int, seed: int) -> list[TrainConfig]:
    """`count` different configurations, the baseline first; fewer if fifty draws find no more.

    A Latin hypercube over the ordered values (McKay, Beckman and Conover, "A Comparison of Three Methods for Selecting
    Values of Input Variables", Technometrics 21, 1979). It is drawn again while duplicate configurations leave places
    free.
    """
    chosen = dict.fromkeys([space.baseline])
    names = [dimension.knob for dimension in space.dimensions]
    levels = [len(dimension.values) for dimension in space.dimensions]
    sampler = qmc.LatinHypercube(d=len(names), rng=seed)
    for _ in range(_MOST_DRAWS):
        for row in sampler.random(count):
            point = {name: int(share * level) for name, share, level in zip(names, row, levels, strict=True)}
            if space.allows(config := space.config_at(point)):
                chosen.setdefault(config)
            if len(chosen) >= count:
                return list(chosen)
    return list(chosen)
