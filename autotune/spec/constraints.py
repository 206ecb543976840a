"""`constraints`: what a configuration must meet beside being fast, as one line of arithmetic each.

`micro_batch_size * grad_accum_steps <= 1024`, `peak_memory_bytes <= 20GiB`, `amp_dtype in [none, bf16]`. Python's own
parser reads it, and a short list of what may stand in it is all that is ever evaluated: a spec may come from anywhere.
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
    """One line of `constraints`. A comparison with a measure that is absent holds; a division by zero does not."""

    text: str
    """As the user wrote it."""
    names: frozenset[str]
    """Knobs and measures that it speaks of."""
    _condition: Condition = field(repr=False, compare=False)

    @property
    def on_knobs(self) -> bool:
        """Whether it names no measure, and so can be decided before a trial."""
        return not self.names & MEASURES

    def violation(self, values: Mapping[str, Any]) -> float:
        """At most 0 where it holds; above, how far from it `values` are.

        Of one comparison of numbers this is relative to the limit, the side that names nothing (where both name
        something, the right one): value ÷ limit − 1 of an upper limit, and the bare difference where the limit is 0.
        Of anything else it is 1 or −1. `and` takes the largest, `or` the smallest.
        """
        return self._condition.violation(values)

    def holds(self, values: Mapping[str, Any]) -> bool:
        return self.violation(values) <= 0

    def sides(self, values: Mapping[str, Any]) -> tuple[float, float] | None:
        """The figure and its limit, of one comparison of numbers that are there; None of anything else."""
        return self._condition.sides(values) if isinstance(self._condition, Comparison) else None


def knob_values(config: TrainConfig) -> dict[str, Any]:
    """What a constraint may ask of a configuration: every knob, custom ones too, and the effective batch size.

    A user's null is a value like any other, `none`; only of a knob without effect is there nothing to compare.
    """
    built_in = {name: config.value(name) for name in KNOB_NAMES}
    custom = {name: "none" if value is None else value for name, value in config.custom}
    return {**built_in, **custom, EFFECTIVE_BATCH_SIZE: config.effective_batch_size}


def parse_constraint(text: str, custom: Collection[str] = ()) -> Constraint:
    """`custom`: the names of the spec's own knobs; as a mapping to their values, whose words then need no quotes.

    Raises ValueError with what is wrong, and where in the text.
    """
    if not text.strip():
        raise ValueError("is empty; write a comparison, such as peak_memory_bytes <= 20GiB")
    if len(text) > MAX_LENGTH:
        raise ValueError(f"is {len(text)} characters long; {MAX_LENGTH} are the most")
    reader = Reader(Vocabulary(custom), Source(text))
    return Constraint(text, *reader.read())
