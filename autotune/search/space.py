"""The space of one study: the knobs that apply, their values, and the way from Optuna's integers to a `TrainConfig`.

Optuna sees every knob as an integer index into its ordered values: neighbours behave alike, and a Gaussian process can
use that. Several points may mean the same training (a prefetch factor without workers); `config_at` maps them to one
configuration.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from optuna.distributions import IntDistribution

from autotune.config import KnobValue, TrainConfig
from autotune.knobs import KNOBS

Indices = Mapping[str, int]
_COUNTABLE = 5_000


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """A knob, or one value of it, that is not searched, and why."""

    knob: str
    value: KnobValue
    """None: the whole knob."""
    reason: str

    def __str__(self) -> str:
        return f"{self.knob}: {self.reason}" if self.value is None else f"{self.knob} {self.value}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One searched knob. `values` are those of the search, and the baseline's own where the search leaves it out."""

    knob: str
    values: tuple[KnobValue, ...]
    searched: tuple[KnobValue, ...]

    def nearest_searched(self, index: int) -> KnobValue:
        value = self.values[index]
        if value in self.searched:
            return value
        return min(self.searched, key=lambda other: abs(self.values.index(other) - index))


@dataclass(frozen=True, kw_only=True)
class Space:
    """All configurations that the study may try.

    `accum_by_micro` holds the accumulation counts that meet the effective batch size, for each micro-batch size; it is
    the one hard constraint between knobs, and `config_at` always meets it.
    """

    baseline: TrainConfig
    dimensions: tuple[Dimension, ...]
    held: Mapping[str, KnobValue]
    """Values of the knobs that are no dimension, for configurations in which they matter."""
    accum_by_micro: Mapping[int, tuple[int, ...]]
    dropped: tuple[Dropped, ...]

    @cached_property
    def distributions(self) -> dict[str, IntDistribution]:
        return {dimension.knob: IntDistribution(0, len(dimension.values) - 1) for dimension in self.dimensions}

    @cached_property
    def baseline_indices(self) -> dict[str, int]:
        return self.indices_of(self.baseline)

    @property
    def points(self) -> int:
        """How many points there are; several may mean one configuration."""
        return math.prod(len(dimension.values) for dimension in self.dimensions)

    @cached_property
    def size(self) -> float:
        """How many configurations there are; infinite when more than any search could run."""
        if self.points > _COUNTABLE:
            return math.inf
        return len(self.configurations())

    def configurations(self) -> dict[TrainConfig, dict[str, int]]:
        """Every configuration, with the first point that means it. For spaces of a few thousand points."""
        choices = [range(len(dimension.values)) for dimension in self.dimensions]
        names = [dimension.knob for dimension in self.dimensions]
        found: dict[TrainConfig, dict[str, int]] = {}
        for point in itertools.product(*choices):
            indices = dict(zip(names, point, strict=True))
            found.setdefault(self.config_at(indices), indices)
        return found

    def config_at(self, indices: Indices) -> TrainConfig:
        """The configuration that a point means."""
        if dict(indices) == self.baseline_indices:
            return self.baseline
        searched = {
            dimension.knob: dimension.nearest_searched(indices[dimension.knob]) for dimension in self.dimensions
        }
        return self.complete(TrainConfig.from_dict({**self.held, **searched}))

    def complete(self, config: TrainConfig) -> TrainConfig:
        """`config` with the nearest accumulation count that meets the effective batch size, and with a value exactly
        for the knobs that matter in it."""
        counts = self.accum_by_micro.get(config.micro_batch_size)
        if counts:
            nearest = min(counts, key=lambda count: (abs(count - config.grad_accum_steps), count))
            config = config.replace(grad_accum_steps=nearest)
        idle: dict[str, KnobValue] = {knob.name: None for knob in KNOBS if not knob.matters(config)}
        if config.num_workers and config.prefetch_factor is None:
            idle["prefetch_factor"] = self._usual("prefetch_factor")
        return config.replace(**idle)

    def indices_of(self, config: TrainConfig) -> dict[str, int]:
        """A point that means `config`; a value outside the space takes index 0."""
        values = config.to_dict()
        return {
            dimension.knob: dimension.values.index(values[dimension.knob])
            if values[dimension.knob] in dimension.values
            else 0
            for dimension in self.dimensions
        }

    def to_dict(self) -> dict[str, object]:
        """What a resumed study compares: the values of every dimension, in order, and the baseline."""
        return {
            "baseline": self.baseline.to_dict(),
            "dimensions": {dimension.knob: list(dimension.values) for dimension in self.dimensions},
            "held": dict(self.held),
            "effective_batch": {str(micro): list(counts) for micro, counts in self.accum_by_micro.items()},
        }

    def _usual(self, knob: str) -> KnobValue:
        searched = (dimension.searched[0] for dimension in self.dimensions if dimension.knob == knob)
        return next(searched, self.held.get(knob))
