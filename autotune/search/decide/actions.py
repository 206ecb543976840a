"""What a study can do next. An action says all that is needed to do it, and does nothing itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from autotune.config import TrainConfig
from autotune.records import Phase, Purpose, TrialRequest
from autotune.search.decide.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Begin a search trial, of what the strategy proposes or of `planned`."""

    planned: TrainConfig | None = None
    or_side: bool = False
    """Whether it may be one side of a configuration alone, if the strategy wants to know any."""


@dataclass(frozen=True)
class Wait:
    """Wait until one of the running trials has ended."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Run one configuration, alone, and record it."""

    phase: ClassVar[Phase]
    purpose: Purpose
    request: TrialRequest
    deadline_s: float
    """Seconds after which it is killed."""
    patience_s: float | None = None
    """Seconds that a run like it might take; one that is killed sooner was cut short. None: as many as it gets."""
    round: int | None = None
    """Number of the confirming round that it belongs to."""


@dataclass(frozen=True, kw_only=True)
class Trial(Run):
    """The trial that a `Measure` begins, once the strategy has proposed a configuration."""

    phase = Phase.SEARCHING


@dataclass(frozen=True, kw_only=True)
class Repeat(Run):
    """Run the baseline a second time, early, to see how much two runs of one configuration differ."""

    phase = Phase.SEARCHING
    purpose: Purpose = Purpose.REPEAT


@dataclass(frozen=True, kw_only=True)
class Confirm(Run):
    """A run of a round of the confirmation."""

    phase = Phase.CONFIRMING
    purpose: Purpose = Purpose.CONFIRM


@dataclass(frozen=True, kw_only=True)
class Try(Run):
    """A search trial of one configuration after the search's end, unless another session runs it."""

    phase = Phase.CONFIRMING
    purpose: Purpose = Purpose.SEARCH


@dataclass(frozen=True, kw_only=True)
class Test(Run):
    """A watched run of the stability tests: a probe or a reference."""

    phase = Phase.TESTING


@dataclass(frozen=True, kw_only=True)
class Soak(Run):
    """Train the configuration that will be emitted for many steps."""

    phase = Phase.SOAKING
    purpose: Purpose = Purpose.SOAK


@dataclass(frozen=True)
class Stop:
    """End the study: nothing is left to do, or there is no time for it."""

    verdict: Verdict | None
    """None where not even the baseline was measured."""


Action = Measure | Wait | Repeat | Confirm | Try | Test | Soak | Stop
