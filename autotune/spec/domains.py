"""Sets of values for a search: a single value, a list, or a range."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    GetJsonSchemaHandler,
    NonNegativeInt,
    PositiveInt,
    Tag,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from autotune.spec.fields import Section

MAX_VALUES = 1000
"""Maximum number of values for one knob: no budget can measure more, and a typing error in a range must not fill the
memory."""
FORM = ":"
"""First character of the tags that distinguish the forms of a field; it makes them recognisable as no keys of the
document."""


def _step(value: object) -> object:
    if value == "pow2" or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError("must be pow2, or a whole number of at least 1")


class IntRange(Section):
    """Integers from `min` to `max`, both included."""

    min: NonNegativeInt
    max: NonNegativeInt
    step: Annotated[
        Literal["pow2"] | int, BeforeValidator(_step, json_schema_input_type=Literal["pow2"] | PositiveInt)
    ] = "pow2"
    """`pow2`: the powers of two from `min` to `max`, and 0 if `min` is 0 · a number: the distance between values."""

    @model_validator(mode="after")
    def _neither_empty_nor_endless(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        if isinstance(self.step, int) and (self.max - self.min) // self.step >= MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values; take a larger step, or step: pow2")
        if not self.values():
            raise ValueError(f"no power of two lies between min {self.min} and max {self.max}")
        return self

    def values(self) -> tuple[int, ...]:
        if isinstance(self.step, int):
            return tuple(range(self.min, self.max + 1, self.step))
        powers = tuple(1 << n for n in range(self.max.bit_length()) if self.min <= 1 << n)
        return powers if self.min else (0, *powers)


class PositiveIntRange(IntRange):
    """Integers from `min` to `max`, both included, from 1 on."""

    min: PositiveInt
    max: PositiveInt


def _as_tuple(value: object) -> object:
    if isinstance(value, dict | IntRange):
        return value
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not 0 < len(values) <= MAX_VALUES:
        raise ValueError("give at least one value" if not values else f"more than {MAX_VALUES} values")
    return values


V = TypeVar("V")


def _distinct(values: V) -> V:
    return type(values)(dict.fromkeys(values)) if isinstance(values, tuple) else values


def _domain_form(value: object) -> str:
    return f"{FORM}range" if isinstance(value, dict | IntRange) else f"{FORM}list"


class _OneOrMore:
    """In the JSON Schema, a list may also be written as a single value."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        array = handler(schema)
        return {"anyOf": [array["items"], {**array, "minItems": 1}]}


PositiveDomain = Annotated[
    Annotated[tuple[PositiveInt, ...], _OneOrMore(), Tag(f"{FORM}list")]
    | Annotated[PositiveIntRange, Tag(f"{FORM}range")],
    Discriminator(_domain_form),
    BeforeValidator(_as_tuple),
    AfterValidator(_distinct),
]
NonNegativeDomain = Annotated[
    Annotated[tuple[NonNegativeInt, ...], _OneOrMore(), Tag(f"{FORM}list")] | Annotated[IntRange, Tag(f"{FORM}range")],
    Discriminator(_domain_form),
    BeforeValidator(_as_tuple),
    AfterValidator(_distinct),
]
T = TypeVar("T")
Choices = Annotated[tuple[T, ...], _OneOrMore(), BeforeValidator(_as_tuple), AfterValidator(_distinct)]


class EffectiveBatchRange(Section):
    """Both ends included."""

    min: PositiveInt
    max: PositiveInt

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


def _effective_batch_form(value: object) -> str:
    if isinstance(value, dict | EffectiveBatchRange):
        return f"{FORM}range"
    return f"{FORM}fixed" if isinstance(value, int) else f"{FORM}word"


EffectiveBatch = Annotated[
    Annotated[PositiveInt, Tag(f"{FORM}fixed")]
    | Annotated[EffectiveBatchRange, Tag(f"{FORM}range")]
    | Annotated[Literal["baseline", "free"], Tag(f"{FORM}word")],
    Discriminator(_effective_batch_form),
]


def allows_effective_batch(wanted: int | EffectiveBatchRange | Literal["baseline", "free"], size: int) -> bool:
    """Whether `size` samples per optimizer step meet the spec's `effective_batch_size`. For `baseline`, which is not
    known yet, every size does."""
    if isinstance(wanted, EffectiveBatchRange):
        return wanted.min <= size <= wanted.max
    return isinstance(wanted, str) or wanted == size


def any_batch_fits(
    wanted: int | EffectiveBatchRange | Literal["baseline", "free"],
    micros: Iterable[int] | None,
    accums: Iterable[int] | None,
) -> bool:
    """Whether some product of micro-batch size and accumulation steps meets `wanted`; None for either: any number is
    possible."""
    if isinstance(wanted, str) or (micros is None and accums is None):
        return True
    if micros is not None and accums is not None:
        return any(allows_effective_batch(wanted, micro * accum) for micro, accum in product(micros, tuple(accums)))
    least, most = (wanted, wanted) if isinstance(wanted, int) else (wanted.min, wanted.max)
    return any(most // factor * factor >= max(least, factor) for factor in micros or accums or ())
