"""Whether each emitted setting earns its place: what leaving it out would cost.

A setting that differs from the baseline and gains nothing is one more thing to understand and to maintain, and may cost
memory. The search finds such settings by chance; here they are found again, to be left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from autotune.config import KnobValue, TrainConfig
from autotune.search.performance import PerformanceModel
from autotune.search.performance.model import log_interval
from autotune.search.space import Space
from autotune.stats import TIE, Interval

_TOGETHER = (("micro_batch_size", "grad_accum_steps"), ("num_workers", "prefetch_factor"))
"""Knobs that change together where both do: one alone would be another effective batch size, or mean nothing."""

_MODEL_AT_BEST = 0.02
"""Smallest standard deviation of ln(ratio) that the model is trusted with: its own doubt leaves out what it lacks."""
_CLOSEST = 1e-4
"""The same of what was measured, so that nothing is divided by zero."""

Changes = Mapping[str, tuple[KnobValue, KnobValue]]
"""Knob → (value, value of the baseline)."""


@dataclass(frozen=True, slots=True)
class Gain:
    """How many times faster one configuration is than another, and how that is known."""

    ratio: float
    interval: Interval | None
    source: Literal["measured", "model"]


Compare = Callable[[TrainConfig, TrainConfig], Gain]
"""The first configuration against the second."""


def by_model(model: PerformanceModel, *, doubtful: bool = False) -> Compare:
    """What the performance model expects, with its 95 % interval.

    `doubtful`: a standard deviation less than it expects, for finding what may be worth a trial without.
    """

    def compare(one: TrainConfig, other: TrainConfig) -> Gain:
        mean, doubt = model.compare(one, other)
        _, low, high = log_interval(mean, doubt)
        return Gain(math.exp(mean - doubt * doubtful), Interval(low, high), "model")

    return compare


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting that differs from the baseline, or would in a configuration that was not emitted."""

    changes: Changes
    gain: Gain
    """With it, over without it."""
    kept: bool

    def to_dict(self) -> dict[str, Any]:
        """As `best.yaml` states it."""
        interval = self.gain.interval
        return {
            "set": {knob: value for knob, (value, _) in self.changes.items()},
            "instead_of": {knob: value for knob, (_, value) in self.changes.items()},
            "gain": round(self.gain.ratio - 1, 4),
            "ci95": [round(interval.low - 1, 4), round(interval.high - 1, 4)] if interval else None,
            "source": self.gain.source,
            "kept": self.kept,
        }


def simplest(config: TrainConfig, space: Space, compare: Compare) -> TrainConfig:
    """`config` without the settings that gain less than 1 %, all of them together no more either.

    Greedy: what gains least goes first, and each gain is that over the configuration that is left, because a setting
    may be needed for another one.
    """
    current = config
    while True:
        choices = [(compare(config, other).ratio, other) for _, other in _each_left_out(current, space)]
        lost, simpler = min(choices, key=lambda choice: choice[0], default=(TIE, current))
        if lost >= TIE:
            return current
        current = simpler


def simpler_form(
    config: TrainConfig, tried: Mapping[TrainConfig, float], baseline: TrainConfig, expected: Compare
) -> TrainConfig:
    """The one of those `tried` with the fewest settings that does nothing but a part of what `config` does, and over
    which `config` seems to gain less than 1 %; `config` itself where there is none.

    `tried`: samples per second of one run each, of `config` too. Either that or what is expected has to say so: it is
    worth a finalist's place, and the rounds decide.
    """
    tied = [
        other
        for other, rate in tried.items()
        if is_part(other, config, baseline) and (rate * TIE > tried[config] or expected(config, other).ratio < TIE)
    ]
    return min(tied, key=lambda other: len(other.differences(baseline)), default=config)


def is_part(simple: TrainConfig, config: TrainConfig, baseline: TrainConfig) -> bool:
    """Whether `simple` is `config` with some of its settings back at the baseline's, and not all."""
    differing = simple.differences(config)
    return (
        bool(differing)
        and simple != baseline
        and all(own == baseline.value(knob) for knob, (own, _) in differing.items())
    )


def together(measured: Gain, expected: Gain) -> Gain:
    """What was measured, with what the model expects where that leaves doubt: the mean weighed by precision.

    Both ratios are taken as independent and normal in their logarithms; the model is never taken to be closer than 2 %.
    """
    known, believed = _deviation(measured), max(_deviation(expected), _MODEL_AT_BEST)
    weights = 1 / max(known, _CLOSEST) ** 2, 1 / believed**2
    mean = (weights[0] * math.log(measured.ratio) + weights[1] * math.log(expected.ratio)) / sum(weights)
    ratio, low, high = log_interval(mean, 1 / math.sqrt(sum(weights)))
    return Gain(ratio, Interval(low, high), "measured" if weights[0] > weights[1] else "model")


def _deviation(gain: Gain) -> float:
    """Standard deviation of the logarithm."""
    return math.log(gain.interval.high / gain.interval.low) / (2 * 1.96) if gain.interval else math.inf


def settings(
    emitted: TrainConfig, left_out: Iterable[TrainConfig], space: Space, compare: Compare
) -> tuple[Setting, ...]:
    """What each setting of `emitted` gains, the most first; then those of the configurations `left_out`, of which
    `emitted` is a simpler form, that it does without."""
    baseline = space.baseline
    alone = {tuple(changes): (changes, without) for changes, without in _each_left_out(emitted, space)}
    shown = [alone[knobs] for knobs in grouped(emitted.differences(baseline)) if knobs in alone]
    kept = [Setting(changes, compare(emitted, without), kept=True) for changes, without in shown]
    dropped: dict[str, Setting] = {}
    for richer in left_out:
        differing = richer.differences(emitted)
        for knobs in grouped(knob for knob, (_, own) in differing.items() if own == baseline.value(knob)):
            changes = {knob: differing[knob] for knob in knobs}
            other = space.complete(emitted.with_values({knob: value for knob, (value, _) in changes.items()}))
            if other != emitted:
                dropped.setdefault(" ".join(knobs), Setting(changes, compare(other, emitted), kept=False))
    return (*sorted(kept, key=lambda setting: -setting.gain.ratio), *dropped.values())


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
        if fewer and space.allows(without):
            found.append(({knob: differing[knob] for knob in knobs}, without))
    return found
