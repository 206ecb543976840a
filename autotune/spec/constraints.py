"""`constraints`: what a configuration must meet in addition to being fast; each is one line of arithmetic.

`micro_batch_size * grad_accum_steps <= 1024`, `peak_memory_bytes <= 20GiB`, `amp_dtype in [none, bf16]`. Python's
parser reads it, but only a short list of operations is evaluated, because a spec may come from anywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from autotune.config import KNOB_NAMES, TrainConfig
from autotune.spec.conditions import Comparison, Condition
from autotune.spec.grammar import Reader, Source
from autotune.spec.vocabulary import EFFECTIVE_BATCH_SIZE, MEASURES, Vocabulary

__all__ = ["MEASURES", "Constraint", "knob_values", "parse_constraint"]

MAX_LENGTH = 500


@dataclass(frozen=True)
class Constraint:
    """One line of `constraints`. A comparison with an absent measure holds; one with a division by zero does not."""

    text: str
    """As the user wrote it."""
    names: frozenset[str]
    """Knobs and measures that it names."""
    _condition: Condition = field(repr=False, compare=False)

    @property
    def on_knobs(self) -> bool:
        """Whether it names only knobs, so that it can be decided before a trial."""
        return not self.names & MEASURES

    def violation(self, values: Mapping[str, Any]) -> float:
        """0 or less if the constraint holds; otherwise how far `values` violate it.

        For a comparison of numbers it is relative to the limit: value ÷ limit − 1 for an upper limit, or the difference
        if the limit is 0. The limit is the side that names nothing; if both sides name something, the right one. For
        everything else it is 1 or −1. `and` takes the largest, `or` the smallest.
        """
        return self._condition.violation(values)

    def holds(self, values: Mapping[str, Any]) -> bool:
        return self.violation(values) <= 0

    def sides(self, values: Mapping[str, Any]) -> tuple[float, float] | None:
        """The value and its limit, for a single comparison whose numbers are known; else None."""
        return self._condition.sides(values) if isinstance(self._condition, Comparison) else None


def knob_values(config: TrainConfig) -> dict[str, Any]:
    """The values that a constraint can name: every knob, custom knobs included, and the effective batch size.

    A custom knob's null is a normal value, `none`; only a knob without effect has no value to compare.
    """
    built_in = {name: config.value(name) for name in KNOB_NAMES}
    custom = {name: "none" if value is None else value for name, value in config.custom}
    return {**built_in, **custom, EFFECTIVE_BATCH_SIZE: config.effective_batch_size}


def parse_constraint(text: str, custom: Collection[str] = ()) -> Constraint:
    """`custom`: the names of the spec's own knobs; or a mapping to their values, so that words among these need no
    quotes.

    Raises ValueError that says what is wrong and where in the text.
    """
    if not text.strip():
        raise ValueError("is empty; write a comparison, such as peak_memory_bytes <= 20GiB")
    if len(text) > MAX_LENGTH:
        raise ValueError(f"is {len(text)} characters long; {MAX_LENGTH} are the most")
    reader = Reader(Vocabulary(custom), Source(text))
    return Constraint(text, *reader.read())
