"""Whether each emitted setting earns its place: what leaving it out would cost.

A setting that differs from the baseline and gains nothing is one more thing to understand and to maintain, and may cost
memory. The search finds such settings by chance; here they are found again, to be left out. A setting has to show that
it gains 1 %: as long as that is not known, the configuration without it is measured beside the one with it, and wins
where it was as good.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from autotune.config import KnobValue, TrainConfig
from autotune.knobs import KNOBS
from autotune.search.performance import PerformanceModel
from autotune.search.performance.model import log_interval
from autotune.search.space import Space
from autotune.stats import TIE, WORTHWHILE, Interval

_TOGETHER = (("micro_batch_size", "grad_accum_steps"), ("num_workers", "prefetch_factor"))
"""Knobs that change together where both do: one alone would be another effective batch size, or mean nothing."""

_MODEL_AT_BEST = 0.02
"""Smallest standard deviation of ln(ratio) that the model is trusted with: its own doubt leaves out what it lacks."""
_CLOSEST = 1e-4
"""The same of what was measured, so that nothing is divided by zero."""

_DOUBTS = (1.96, 1.0, 0.0)
"""Standard deviations by which a gain is taken to be smaller than expected, to find what may gain less than 1 %."""

Changes = Mapping[str, tuple[KnobValue, KnobValue]]
"""Knob → (value, value of the baseline)."""


@dataclass(frozen=True, slots=True)
class Gain:
    """How many times faster one configuration is than another, and how that is known."""

    ratio: float
    interval: Interval | None
    source: Literal["measured", "model"]

    @classmethod
    def of(cls, logarithm: float, deviation: float, source: Literal["measured", "model"]) -> Gain:
        """A gain from its logarithm and the standard deviation of that; infinite: nobody knows how far it is off."""
        if math.isinf(deviation):
            return cls(math.exp(logarithm), None, source)
        ratio, low, high = log_interval(logarithm, deviation)
        return cls(ratio, Interval(low, high), source)

    @property
    def is_known(self) -> bool:
        """Whether the interval says that it is 1 % or more, or that it is less."""
        return self.interval is not None and not self.interval.low < TIE <= self.interval.high

    def less(self, deviations: float) -> Gain:
        """So many standard deviations of its logarithm less."""
        times = math.exp(-deviations * _deviation(self)) if self.interval and deviations else 1.0
        return Gain(self.ratio * times, self.interval, self.source)

    @property
    def at_stake(self) -> float:
        """ln(throughput) that is lost on average without it, by all that it may be; infinite where nothing is known."""
        mean, deviation = math.log(self.ratio), _deviation(self)
        if math.isinf(deviation):
            return math.inf
        normal = NormalDist(mean, max(deviation, _CLOSEST))
        return normal.variance * normal.pdf(0.0) + mean * (1 - normal.cdf(0.0))


Compare = Callable[[TrainConfig, TrainConfig], Gain]
"""The first configuration against the second."""


def by_model(model: PerformanceModel) -> Compare:
    """What the performance model expects, with its 95 % interval."""

    @functools.cache
    def compare(one: TrainConfig, other: TrainConfig) -> Gain:
        return Gain.of(*model.compare(one, other), "model")

    return compare


def doubting(compare: Compare, deviations: float = 1.0) -> Compare:
    """Standard deviations less than what is expected: for finding what may be worth a trial without."""
    return lambda one, other: compare(one, other).less(deviations)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting that differs from the baseline, or would in a configuration that was not emitted."""

    changes: Changes
    gain: Gain | None
    """With it, over without it; None where it cannot be left out."""
    kept: bool
    because: Literal["spec", "needed"] = "spec"
    """Why it cannot be: the spec lists no other value, or another setting or a constraint needs it."""

    def to_dict(self) -> dict[str, Any]:
        """As `best.yaml` states it. `known`: whether it gains 1 % or more, or less than that, for sure."""
        interval = self.gain.interval if self.gain else None
        return {
            "set": {knob: value for knob, (value, _) in self.changes.items()},
            "instead_of": {knob: value for knob, (_, value) in self.changes.items()},
            "gain": round(self.gain.ratio - 1, 4) if self.gain else None,
            "ci95": [round(interval.low - 1, 4), round(interval.high - 1, 4)] if interval else None,
            "source": self.gain.source if self.gain else self.because,
            "known": self.gain.is_known if self.gain else True,
            "kept": self.kept,
        }


def simplest(config: TrainConfig, space: Space, compare: Compare) -> TrainConfig:
    """`config` without the settings that gain less than 1 %, and with fewer loader processes where more gain no more,
    all of them together no more either.

    Greedy: what gains least goes first, and each gain is that over the configuration that is left, because a setting
    may be needed for another one.
    """
    return [config, *_ever_simpler(config, space, compare)][-1]


def _ever_simpler(config: TrainConfig, space: Space, compare: Compare) -> Iterator[TrainConfig]:
    """`config` with one such change less, two less, and so on."""
    current = config
    while True:
        others = [*(other for _, other in _each_left_out(current, space)), *_with_fewer_workers(current, space)]
        choices = [(compare(config, other).ratio, other) for other in others]
        lost, current = min(choices, key=lambda choice: choice[0], default=(TIE, current))
        if lost >= TIE:
            return
        yield current


def simpler_form(
    config: TrainConfig, tried: Mapping[TrainConfig, float], baseline: TrainConfig, expected: Compare
) -> TrainConfig:
    """What to measure beside `config`, because it may be as fast with fewer settings; `config` where nothing may.

    The simplest of those `tried` that are a part of it and over which it seems to gain less than 1 %, by one run or by
    what is expected. The rounds decide.

    `tried`: samples per second of one run each, of `config` too.
    """
    simple = [
        other
        for other, rate in tried.items()
        if is_part(other, config, baseline) and (rate * TIE > tried[config] or expected(config, other).ratio < TIE)
    ]
    return min(simple, key=lambda other: extent(other, baseline), default=config)


def still_simpler(
    leader: TrainConfig, is_open: Callable[[TrainConfig], bool], space: Space, compare: Compare
) -> TrainConfig | None:
    """What is still to be measured: `leader` without settings that are not known to gain 1 %, the simplest first; None
    where nothing is. `is_open`: whether it was neither measured nor refused; `compare`: by all that is known so far."""
    for deviations in _DOUBTS:
        for simple in reversed([*_ever_simpler(leader, space, doubting(compare, deviations))]):
            if simple != space.baseline and is_open(simple):
                return simple
    return None


def strengths(configs: Sequence[TrainConfig], compare: Compare) -> dict[TrainConfig, float]:
    """ln(throughput) of each, around the mean of all: what fits the comparisons of all pairs best, each weighed by how
    well it is known. Needs an interval for each pair."""
    balance, sums = np.zeros((len(configs), len(configs))), np.zeros(len(configs))
    for (row, one), (column, other) in itertools.combinations(enumerate(configs), 2):
        gain = compare(one, other)
        weight = 1 / max(_deviation(gain), _CLOSEST) ** 2
        balance[[row, column], [row, column]] += weight
        balance[[row, column], [column, row]] -= weight
        sums[row] += weight * math.log(gain.ratio)
        sums[column] -= weight * math.log(gain.ratio)
    found = np.linalg.lstsq(balance, sums, rcond=None)[0]
    return dict(zip(configs, map(float, found), strict=True))


def is_as_good(measured: Gain | None, known: Gain) -> bool:
    """Whether the second of two, a part of the first, is preferred: the first is expected to gain less than 1 %; or not
    known to gain that, nor expected to gain what anybody would want, while the rounds measured less than 1 %.

    `measured`: by the rounds alone; `known`: by them and by what is expected.
    """
    in_doubt = not known.is_known and known.ratio < WORTHWHILE
    return known.ratio < TIE or (in_doubt and measured is not None and measured.ratio < TIE)


def simplest_as_good(
    config: TrainConfig,
    passing: Collection[TrainConfig],
    baseline: TrainConfig,
    as_good: Callable[[TrainConfig, TrainConfig], bool],
) -> TrainConfig:
    """`config`, or of those `passing` that are a part of it and as good the one with the fewest settings; again of that
    one, until there is none. `as_good`: whether the second is as good as the first, a richer one."""
    parts = [other for other in passing if is_part(other, config, baseline) and as_good(config, other)]
    if not parts:
        return config
    fewest = min(parts, key=lambda other: extent(other, baseline))
    return simplest_as_good(fewest, passing, baseline, as_good)


def is_part(simple: TrainConfig, config: TrainConfig, baseline: TrainConfig) -> bool:
    """Whether `simple` is `config` with some of its settings back at the baseline's, and not all; or with fewer loader
    processes that it adds to the baseline's."""
    differing = simple.differences(config)
    fewer = baseline.num_workers < simple.num_workers < config.num_workers
    return (
        bool(differing)
        and simple != baseline
        and all(
            own == baseline.value(knob) or (knob == "num_workers" and fewer) for knob, (own, _) in differing.items()
        )
    )


def extent(config: TrainConfig, baseline: TrainConfig) -> tuple[int, int]:
    """How large a change from the baseline it is: the number of settings, then of loader processes, of which each takes
    memory and starts anew in each training."""
    return len(config.differences(baseline)), max(config.num_workers - baseline.num_workers, 0)


def together(measured: Gain, expected: Gain, *, at_best: float = _MODEL_AT_BEST) -> Gain:
    """What was measured, with what the model expects where that leaves doubt: the mean weighed by precision.

    Both ratios are taken as independent and normal in their logarithms; the model is never taken to be closer than
    `at_best`.
    """
    known, believed = _deviation(measured), max(_deviation(expected), at_best)
    weights = 1 / max(known, _CLOSEST) ** 2, 1 / believed**2
    mean = (weights[0] * math.log(measured.ratio) + weights[1] * math.log(expected.ratio)) / sum(weights)
    return Gain.of(mean, 1 / math.sqrt(sum(weights)), "measured" if weights[0] > weights[1] else "model")


def better_known(one: Gain | None, other: Gain) -> Gain:
    """The better known of two gains from the same runs."""
    return one if one is not None and _deviation(one) < _deviation(other) else other


def worth_confirming(
    chosen: Sequence[TrainConfig], baseline: TrainConfig, compare: Compare, little: float
) -> list[TrainConfig]:
    """From the finalists that were `chosen`, likely best first: those expected to win, equally good smaller changes
    first; its parts, unless it is known that they are not as good; and who may be better by so much that on
    average more than `little` is at stake."""

    def as_good(rich: TrainConfig, simple: TrainConfig) -> bool:
        return compare(rich, simple).ratio < TIE

    likely = simplest_as_good(chosen[0], chosen, baseline, as_good)

    def is_worth_it(other: TrainConfig) -> bool:
        in_doubt = is_part(other, likely, baseline) and not compare(likely, other).is_known
        return in_doubt or compare(other, likely).at_stake > little

    return [likely, *(other for other in chosen if other != likely and is_worth_it(other))]


def _deviation(gain: Gain) -> float:
    """Standard deviation of the logarithm."""
    return math.log(gain.interval.high / gain.interval.low) / (2 * 1.96) if gain.interval else math.inf


def settings(
    emitted: TrainConfig, left_out: Iterable[TrainConfig], space: Space, compare: Compare
) -> tuple[Setting, ...]:
    """What each setting of `emitted` gains, the most first, and those that cannot be left out; then, for each of the
    configurations `left_out`, of which `emitted` is a simpler form, what it has beside them, all together: so they were
    measured."""
    differing = emitted.differences(space.baseline)
    alone = {tuple(changes): (changes, without) for changes, without in _each_left_out(emitted, space)}
    kept, fixed = list[tuple[float, Setting]](), list[Setting]()
    for knobs in grouped(differing):
        if knobs in alone:
            changes, without = alone[knobs]
            gain = compare(emitted, without)
            kept.append((-gain.ratio, Setting(changes, gain, kept=True)))
        else:
            changes = {knob: differing[knob] for knob in knobs}
            without = space.complete(emitted.with_values({knob: own for knob, (_, own) in changes.items()}))
            listed = all(_may_be(knob, without, space) for knob in knobs)
            fixed.append(Setting(changes, None, kept=True, because="needed" if listed else "spec"))
    dropped = [
        Setting(richer.differences(emitted), compare(richer, emitted), kept=False)
        for richer in sorted(left_out, key=lambda richer: len(richer.differences(emitted)))
    ]
    return (*(setting for _, setting in sorted(kept, key=lambda pair: pair[0])), *fixed, *dropped)


def grouped(knobs: Iterable[str]) -> list[tuple[str, ...]]:
    """`knobs` as one changes them: pairs that depend on each other together, all others alone."""
    left = list(knobs)
    together = [pair for pair in _TOGETHER if all(knob in left for knob in pair)]
    joined = {knob for pair in together for knob in pair}
    return [*together, *((knob,) for knob in left if knob not in joined)]


def _each_left_out(config: TrainConfig, space: Space) -> list[tuple[Changes, TrainConfig]]:
    """One setting back at the baseline's value, as far as the space allows it: what was changed, and what is left."""
    differing = config.differences(space.baseline)
    found: list[tuple[Changes, TrainConfig]] = []
    for knobs in dict.fromkeys([*grouped(differing), *((knob,) for knob in differing)]):
        without = space.complete(config.with_values({knob: differing[knob][1] for knob in knobs}))
        fewer = len(without.differences(space.baseline)) < len(differing)
        possible = without == space.baseline or all(_may_be(knob, without, space) for knob in knobs)
        if fewer and possible and space.allows(without):
            found.append(({knob: differing[knob] for knob in knobs}, without))
    return found


def _with_fewer_workers(config: TrainConfig, space: Space) -> list[TrainConfig]:
    """`config` with the next smaller number of loader processes that still adds to the baseline's, if there is one."""
    values = {value for each in space.dimensions if each.knob == "num_workers" for value in each.searched}
    between = [
        each for each in values if isinstance(each, int) and space.baseline.num_workers < each < config.num_workers
    ]
    fewer = [space.complete(config.replace(num_workers=max(between)))] if between else []
    return [each for each in fewer if space.allows(each)]


def _may_be(knob: str, config: TrainConfig, space: Space) -> bool:
    """Whether the search may give `knob` the value that it has in `config`: the spec may list others only."""
    value = config.value(knob)
    if knob == "grad_accum_steps" and space.accum_by_micro:
        return value in space.accum_by_micro.get(config.micro_batch_size, ())
    if value is None and any(each.name == knob and not each.matters(config) for each in KNOBS):
        return True
    listed = [each.searched for each in space.dimensions if each.knob == knob]
    return all(value in searched for searched in listed) and value == space.held.get(knob, value)
