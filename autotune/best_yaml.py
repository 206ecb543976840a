"""The content of `best.yaml`, for code that reads one: every value that is used has its type and its range here.

`Essence` is what training code and exports need, also from a file outside of its study; `Document` is everything. This
module is imported only for reading a file, like `autotune.untrusted`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal, Self

from annotated_types import Ge, Gt, Le, Len, MaxLen
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from autotune.config import TrainConfig, config_model
from autotune.untrusted import Checked, Line, Scalar

if TYPE_CHECKING:
    _Config = TrainConfig
else:
    _Config = config_model()

DeviceKind = Literal["cpu", "cuda", "mps", "xpu"]
_Positive = Annotated[float, Gt(0), Le(1e18)]
_NotNegative = Annotated[float, Ge(0), Le(1e18)]
_Number = Annotated[float, Ge(-1e18), Le(1e18)]
_Count = Annotated[int, Ge(0), Le(2**62)]
_Share = Annotated[float, Ge(0), Le(1)]
_Ends = Annotated[list[_Number], Len(2, 2)]
"""Both ends of a 95 % interval."""
_Text = Annotated[str, MaxLen(20_000)]
"""Text from users' code and their tools: cleaned where it is shown."""


def _study_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", text):
        raise ValueError("must be letters, digits, '.', '_' and '-', the first a letter or digit: it names a folder")
    return text


StudyName = Annotated[str, AfterValidator(_study_name)]


def _from_json(value: object) -> object:
    """JSON has no NaN: records and `best.yaml` store it as text."""
    return 0.0 if value in ("NaN", "Infinity", "-Infinity") else value


_Figure = Annotated[float, BeforeValidator(_from_json)]


class Rate(Checked):
    samples_per_s: _Positive
    samples_per_s_ci95: _Ends | None = None


class BaselineRate(Rate):
    config: _Config


class Ratio(Checked):
    ratio: _Positive
    ci95: _Ends | None = None


class Verdict(Checked):
    verdict: Literal["stable", "unconfirmed"]


class Environment(Checked, extra="allow"):
    __pydantic_extra__: dict[str, Line | None]
    device: Line = "an unknown device"
    device_kind: DeviceKind = "cpu"
    torch: Line | None = None
    autotune: Line | None = None


class Essence(Checked):
    format: Literal[1]
    study: StudyName
    config: _Config
    measured: Rate
    baseline: BaselineRate
    speedup: Ratio
    stability: Verdict
    environment: Environment


class Figures(Rate):
    samples_per_s_ci95: _Ends | None
    step_time_s: _NotNegative
    data_wait_fraction: _Number
    copy_fraction: _Number
    forward_backward_fraction: _Number
    optimizer_fraction: _Number
    peak_memory_bytes: _Count
    energy_j_per_sample: _NotNegative | None = None
    steps: _Count
    supply_per_s: _NotNegative | None = None
    demand_per_s: _NotNegative | None = None
    fetch_s: _NotNegative | None = None
    fetch_cpu_s: _NotNegative | None = None
    epoch_edge_fraction: _Number | None = None
    disturbed_blocks: _Count
    bottleneck: Line


class BaselineFigures(Figures, BaselineRate):
    pass


class Speedup(Ratio):
    ci95: _Ends | None
    outcome: Literal["faster", "tie", "ambiguous", "slower"]
    pairs: _Count
    probability_slower: _Share | None = None


class Setting(Checked):
    set: Annotated[dict[Line, Scalar], Len(1)]
    instead_of: dict[Line, Scalar]
    gain: _Number | None
    ci95: _Ends | None = None
    source: Literal["measured", "model", "spec", "needed"]
    known: bool = True
    kept: bool


class Gate(Checked):
    name: _Text
    passed: bool
    value: _Figure
    limit: _Figure
    detail: _Text
    warns_only: bool
    conclusive: bool


class Refused(Checked):
    config: _Config
    checks: list[Gate]


class Stability(Verdict):
    checks: list[Gate]
    refused: list[Refused]


class Expected(Checked):
    samples_per_s: _Number
    low: _Number
    high: _Number


class Foretold(Checked):
    predicted: Expected
    measured_samples_per_s: _Positive


class Effect(Checked):
    set: Annotated[dict[Line, Scalar], Len(1)]
    instead_of: Annotated[dict[Line, Scalar], Len(1)]
    ratio: _Positive
    ci95: _Ends


class Learned(Checked):
    effects: list[Effect] = Field(default_factory=list)
    facts: list[Line] = Field(default_factory=list)


class Strategy(Checked):
    name: Line
    predictions: _Count = 0
    median_error: _NotNegative = 0.0
    within_interval: _Share = 0.0
    emitted: Foretold | None = None
    gave_up: _Text | None = None
    learned: Learned = Learned()
    left_to_gain: _Number = 0.0

    @model_validator(mode="after")
    def _says_how_good_predictions_were(self) -> Self:
        if self.predictions and not {"median_error", "within_interval"} <= self.model_fields_set:
            raise ValueError("has predictions, and no median_error and within_interval of them")
        return self


class Effort(Checked):
    trials: _Count
    sides: _Count = 0
    runs: _Count
    by_status: dict[Line, _Count]
    budget_s: _NotNegative
    elapsed_s: _NotNegative
    training_s: _NotNegative
    not_searched: list[_Text] = Field(default_factory=list)
    strategy: Strategy = Strategy(name="")


class Document(Essence):
    effective_batch_size: _Count
    effective_batch_change: _Text | None = None
    measured: Figures
    baseline: BaselineFigures
    speedup: Speedup
    settings: list[Setting] = Field(default_factory=list)
    stability: Stability
    search: Effort
    notes: list[_Text] = Field(default_factory=list)
    spec_sha256: Line
    created: Line
