"""The space of one study: the knobs that apply, their values, and the way from Optuna's integers to a `TrainConfig`.

Optuna sees every knob as an integer index into its ordered values: neighbours behave alike, and a Gaussian process can
use that. Several points may mean the same training (a prefetch factor without workers); `config_at` maps them to one
configuration.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from optuna.distributions import IntDistribution

from autotune.config import KNOB_NAMES, KnobValue, TrainConfig
from autotune.knobs import KNOBS
from autotune.spec import Constraint, knob_values

Indices = Mapping[str, int]
_COUNTABLE = 5_000
_MOST_LOOKED_AT = 50_000
"""Points of the constrained dimensions: a second's work."""
_MOST_KEPT = 50_000
_DECIDED_BY: Mapping[str, frozenset[str]] = {
    "prefetch_factor": frozenset({"num_workers"}),
    "bucket_cap_mb": frozenset({"data_parallel"}),
    "gradient_as_bucket_view": frozenset({"data_parallel"}),
    "static_graph": frozenset({"data_parallel", "grad_accum_steps"}),
    "memory_format": frozenset({"data_parallel"}),
}
"""Knobs that matter in some configurations only, and by which others that is decided."""


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
    allowed: tuple[Constraint, ...] = ()
    """Constraints on knobs: what violates one is no part of the space. The baseline always is, as it is what all others
    are measured against."""
    only: frozenset[TrainConfig] | None = None
    """None but these, where a recorded table holds no others."""
    held_back: Mapping[str, tuple[KnobValue, ...]] = field(default_factory=dict)
    """Values of knobs that are worth a trial only once others have shown that they can help."""
    withheld: bool = False
    """Whether what is held back is no part of the space."""
    too_large: frozenset[TrainConfig] = frozenset()
    """Baselines that did not fit into memory, the spec's own among them; `baseline` stands in for it."""

    @cached_property
    def distributions(self) -> dict[str, IntDistribution]:
        return {dimension.knob: IntDistribution(0, len(dimension.values) - 1) for dimension in self.dimensions}

    @cached_property
    def baseline_indices(self) -> dict[str, int]:
        return self.indices_of(self.baseline)

    @property
    def points(self) -> int:
        """How many points there are; several may mean one configuration."""
        return _points(self.dimensions)

    @cached_property
    def size(self) -> float:
        """How many configurations there are, the baseline among them; infinite when more than any search could run."""
        free = [dimension for dimension in self.dimensions if dimension not in self._constrained]
        parts = self._allowed_parts
        if self.only is not None:
            return len({self.baseline, *self.only})
        if parts is None or len(parts) * _points(free) > _COUNTABLE:
            return math.inf
        points = ({**part, **rest} for part in parts for rest in _grid(free))
        return len({self.baseline, *filter(self.allows, map(self.config_at, points))})

    def configurations(self) -> list[TrainConfig]:
        """Every configuration, the baseline first. For spaces of a few thousand points."""
        found = dict.fromkeys([self.baseline])
        found |= dict.fromkeys(filter(self.allows, map(self.config_at, _grid(self.dimensions))))
        return list(found)

    def restricted_to(self, configs: Collection[TrainConfig]) -> Space:
        """The same space with none but `configs` allowed, and the baseline."""
        return dataclasses.replace(self, only=frozenset(configs), held_back={})

    @cached_property
    def at_hand(self) -> Space:
        """The same space without what is held back."""
        return dataclasses.replace(self, withheld=True) if self.held_back else self

    def holds_back(self, config: TrainConfig) -> bool:
        """Whether `config` is worth a trial only once others have shown that it can help."""
        return any(config.value(knob) in values for knob, values in self.held_back.items())

    @cached_property
    def unconstrained(self) -> Space:
        return dataclasses.replace(self, allowed=()) if self.allowed else self

    @property
    def is_baseline_alone(self) -> bool:
        """Whether the constraints leave nothing to compare with the baseline, where there would be something."""
        return self.size == 1 < self.unconstrained.size

    def allows(self, config: TrainConfig) -> bool:
        """Whether `config` may be tried: it meets the constraints on knobs; of the baseline none is asked."""
        if config == self.baseline:
            return True
        if config in self.too_large or (self.withheld and self.holds_back(config)):
            return False
        if self.only is not None and config not in self.only:
            return False
        return not self.allowed or _meets(self.allowed, config)

    def nearest_allowed(self, indices: Indices) -> dict[str, int]:
        """`indices` with the fewest steps along the constrained dimensions that make it an allowed point."""
        parts = [] if not self.allowed or self.allows(self.config_at(indices)) else self._allowed_parts or []
        nearest = min(parts, key=lambda part: sum(abs(part[knob] - indices[knob]) for knob in part), default={})
        return {**indices, **nearest}

    @cached_property
    def _constrained(self) -> tuple[Dimension, ...]:
        """Those that decide whether a configuration is allowed, directly or through what `complete` makes of them."""
        names = {name for constraint in self.allowed for name in constraint.names}
        for name, decisive in _DECIDED_BY.items():
            if name in names:
                names |= decisive
        if names & {"effective_batch_size", "grad_accum_steps"}:
            names |= {"micro_batch_size", "grad_accum_steps"}
        return tuple(dimension for dimension in self.dimensions if dimension.knob in names)

    @cached_property
    def _allowed_parts(self) -> list[dict[str, int]] | None:
        """The indices of the constrained dimensions with which a configuration is allowed; None: too many to look at.

        The other dimensions do not matter for that, so that a few points tell of a space of millions.
        """
        if _points(self._constrained) > _MOST_LOOKED_AT:
            return None
        rest = {dimension.knob: 0 for dimension in self.dimensions}
        return [part for part in _grid(self._constrained) if self._is_allowed_at({**rest, **part})]

    def _is_allowed_at(self, point: Indices) -> bool:
        return _meets(self.allowed, self._searched_at(point))

    def config_at(self, indices: Indices) -> TrainConfig:
        """The configuration that a point means."""
        return self._config_of(tuple(indices[dimension.knob] for dimension in self.dimensions))

    @cached_property
    def _config_of(self) -> Callable[[tuple[int, ...]], TrainConfig]:
        """Kept: strategies ask for the same points again with every trial."""
        names = [dimension.knob for dimension in self.dimensions]

        @functools.lru_cache(maxsize=_MOST_KEPT)
        def config_of(point: tuple[int, ...]) -> TrainConfig:
            indices = dict(zip(names, point, strict=True))
            return self.baseline if indices == self.baseline_indices else self._searched_at(indices)

        return config_of

    def _searched_at(self, indices: Indices) -> TrainConfig:
        searched = {
            dimension.knob: dimension.nearest_searched(indices[dimension.knob]) for dimension in self.dimensions
        }
        blank = TrainConfig(world_size=self.baseline.world_size)
        return self.complete(blank.with_values({**self.held, **searched}))

    def complete(self, config: TrainConfig) -> TrainConfig:
        """`config` with the nearest accumulation count that meets the effective batch size, and with a value exactly
        for the knobs that matter in it."""
        counts = self.accum_by_micro.get(config.micro_batch_size)
        if counts:
            nearest = min(counts, key=lambda count: (abs(count - config.grad_accum_steps), count))
            config = config.replace(grad_accum_steps=nearest) if nearest != config.grad_accum_steps else config
        if config.data_parallel == "fsdp" and config.memory_format != "contiguous":
            config = config.replace(memory_format="contiguous")  # FSDP2 takes no parameters of another layout
        idle = {knob.name for knob in KNOBS if not knob.matters(config)}
        values: dict[str, KnobValue] = dict.fromkeys(idle)
        # A knob that matters here, and not in the baseline, has no value there to be held at.
        values |= {name: self._usual(name) for name in _DECIDED_BY if name not in idle and config.value(name) is None}
        changed = {name: value for name, value in values.items() if value != config.value(name)}
        return config.replace(**changed) if changed else config

    def indices_of(self, config: TrainConfig) -> dict[str, int]:
        """A point that means `config`; a value outside the space takes index 0."""
        values = {**{name: config.value(name) for name in KNOB_NAMES}, **dict(config.custom)}
        return {
            dimension.knob: dimension.values.index(values[dimension.knob])
            if values.get(dimension.knob) in dimension.values
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
            "constraints": [constraint.text for constraint in self.allowed],
        }

    def _usual(self, knob: str) -> KnobValue:
        searched = (dimension.searched[0] for dimension in self.dimensions if dimension.knob == knob)
        return next(searched, self.held.get(knob))


def _meets(constraints: Sequence[Constraint], config: TrainConfig) -> bool:
    values = knob_values(config)
    return all(constraint.holds(values) for constraint in constraints)


def _points(dimensions: Sequence[Dimension]) -> int:
    return math.prod(len(dimension.values) for dimension in dimensions)


def _grid(dimensions: Sequence[Dimension]) -> Iterator[dict[str, int]]:
    names = [dimension.knob for dimension in dimensions]
    choices = [range(len(dimension.values)) for dimension in dimensions]
    return (dict(zip(names, point, strict=True)) for point in itertools.product(*choices))
