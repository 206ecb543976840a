"""What a knob is: its values on this machine, why a value cannot apply, and when it matters at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from autotune.config import KNOB_NAMES, KnobValue, TrainConfig
from autotune.records import Facts
from autotune.spec import Spec


@dataclass(frozen=True, kw_only=True)
class KnobContext:
    """All that a knob may look at when it decides on its values."""

    spec: Spec
    facts: Facts
    insisting: bool = False
    """Whether the values were given by the user, as a baseline's are: then only what is impossible is refused."""

    def listed(self, knob: str) -> bool:
        """Whether the user listed values for this knob, which overrules advice (but not what is impossible)."""
        return self.insisting or self.spec.search.values(knob) is not None

    @property
    def on_cpu(self) -> bool:
        return self.facts.device.kind == "cpu"

    @property
    def ranks(self) -> int:
        """Processes that train one model together."""
        return self.spec.execution.ranks_per_trial


class Expectation(NamedTuple):
    """What a value should change against the untuned one, before anything has been measured, as natural logarithms."""

    time: float = 0.0
    """Changes the seconds that forward and backward take for a sample."""
    memory: float = 0.0
    """Changes the bytes that each sample of a micro-batch adds."""
    optimizer: float = 0.0
    """Changes the seconds of the optimizer's update."""


NO_CHANGE = Expectation()


def _nothing(_config: TrainConfig, _facts: Facts) -> Expectation:
    return NO_CHANGE


def _always(_config: TrainConfig) -> bool:
    return True


def _none(_context: KnobContext) -> tuple[KnobValue, ...]:
    return ()


def _never(_value: KnobValue, _context: KnobContext) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One thing to tune. Every file of this folder holds one, named `KNOB`."""

    name: str
    """Field of `TrainConfig`, and key under `search` and `baseline`."""
    domain: Callable[[KnobContext], tuple[KnobValue, ...]]
    """Values to search if the spec does not name the knob, in their natural order: neighbours behave alike."""
    refusal: Callable[[KnobValue, KnobContext], str | None] = _never
    """Why a value cannot apply on this device, model or data, in a few words; None when it can."""
    held_back: Callable[[KnobContext], tuple[KnobValue, ...]] = _none
    """Values of the domain that are tried only once trials have shown that they can help: where loading waits."""
    untuned: Callable[[KnobContext], KnobValue] | None = None
    """What an untuned PyTorch user gets. Default: that of `TrainConfig`."""
    matters: Callable[[TrainConfig], bool] = _always
    """Whether the knob has any effect in this configuration; where it has none its value is None."""

    expected: Callable[[TrainConfig, Facts], Expectation] = _nothing
    """What the knob's value in this configuration should do, where `auto` begins; other knobs may matter to it."""
    doubt: float = 0.2
    """Standard deviation of the expected time, in logarithms: 0.2 is give or take 20 %."""
    memory_doubt: float = 0.02
    """The same of the expected memory."""

    def untuned_value(self, context: KnobContext) -> KnobValue:
        return self.untuned(context) if self.untuned else _DEFAULTS[self.name]


_DEFAULTS: dict[str, KnobValue] = {name: TrainConfig().value(name) for name in KNOB_NAMES}


def of_several_ranks(*values: KnobValue) -> Callable[[KnobContext], tuple[KnobValue, ...]]:
    """The domain of a knob that only trials of several ranks have."""
    return lambda context: values if context.ranks > 1 else (None,)


def refused_to_one_rank(value: KnobValue, context: KnobContext) -> str | None:
    alone = value is not None and context.ranks == 1
    return "it needs several processes; set execution.ranks_per_trial" if alone else None
