"""`ablation`: the techniques whose effects are measured alone and together; each is a knob with two levels."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Annotated, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from autotune.config import AmpDtype, CompileMode, Fp32Precision, KnobValue, MemoryFormat
from autotune.spec.custom import Scalar, empty_is_none_given
from autotune.spec.fields import Section, located

FEWEST_ROUNDS = 3
"""Two rounds show almost nothing about the spread: Student's t with one degree of freedom is 13."""
MOST_FACTORS = 5
"""32 cells per round."""

T = TypeVar("T")


def _two(value: object) -> object:
    levels = tuple(value) if isinstance(value, list | tuple) else ()
    if len(levels) != 2:
        raise ValueError("give two levels, the plain one first: [1, 4]")
    return levels


def _different(levels: tuple[T, T]) -> tuple[T, T]:
    if levels[0] == levels[1]:
        raise ValueError("the two levels are the same")
    return levels


Levels = Annotated[tuple[T, T], BeforeValidator(_two), AfterValidator(_different)]
"""The value without the technique, and the value with it."""


class FactorsSpec(Section):
    """Knobs with two levels each: first the value without the technique, then the value with it."""

    micro_batch_size: Levels[PositiveInt] | None = None
    """grad_accum_steps follows: all cells have the same effective batch size."""
    grad_accum_steps: Levels[PositiveInt] | None = None
    """micro_batch_size follows: all cells have the same effective batch size."""
    amp_dtype: Levels[AmpDtype] | None = None
    pin_memory: Levels[bool] | None = None
    num_workers: Levels[NonNegativeInt] | None = None
    prefetch_factor: Levels[PositiveInt] | None = None
    memory_format: Levels[MemoryFormat] | None = None
    compile: Levels[CompileMode] | None = None
    fp32_precision: Levels[Fp32Precision] | None = None
    fused_optimizer: Levels[bool] | None = None
    activation_checkpointing: Levels[bool] | None = None
    num_threads: Levels[PositiveInt] | None = None
    custom: Annotated[dict[str, Levels[Scalar]], BeforeValidator(empty_is_none_given)] = Field(default_factory=dict)
    """Levels of the knobs under `search.custom`."""

    @model_validator(mode="after")
    def _are_a_design(self) -> Self:
        named = self.named()
        if len(named) > MOST_FACTORS:
            cells = 2 ** len(named)
            raise ValueError(f"{len(named)} factors have {cells} cells a round; give at most {MOST_FACTORS} factors")
        if {"micro_batch_size", "grad_accum_steps"} <= named.keys():
            reason = "give this or grad_accum_steps, not both: each follows from the other and the effective batch size"
            raise located(("micro_batch_size",), reason)
        return self

    def named(self) -> dict[str, tuple[KnobValue, KnobValue]]:
        """Knob → levels, in the order of the knobs; empty if the spec names none."""
        knobs = (name for name in type(self).model_fields if name != "custom")
        built_in = {name: levels for name in knobs if (levels := getattr(self, name)) is not None}
        return {**built_in, **self.custom}


class AblationSpec(Section):
    """What `autotune ablate` measures; a search ignores it."""

    factors: FactorsSpec = FactorsSpec()
    """Default: gradient accumulation, automatic mixed precision and pinned memory, as far as they apply."""
    rounds: Annotated[int, Field(ge=FEWEST_ROUNDS)] | None = None
    """Maximum number of rounds; each measures every cell once. Default: until the budget is spent."""


def ablation_flaws(ablation: AblationSpec | None, custom: Collection[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """(path, message) for each factor that is not a knob in `search.custom`."""
    for name in ablation.factors.custom if ablation else ():
        if name not in custom:
            near = get_close_matches(name, custom, n=1)
            hint = f"did you mean {near[0]}?" if near else f"search.custom has {', '.join(custom) or 'none'}"
            yield ("ablation", "factors", "custom", name), f"unknown knob; {hint}"
