"""The names and words that constraints may use."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import get_args

from autotune.config import KNOB_NAMES, AmpDtype, CompileMode, DataParallel, Fp32Precision, MemoryFormat
from autotune.spec.tokens import CONNECTIVES

EFFECTIVE_BATCH_SIZE = "effective_batch_size"
MEASURES: frozenset[str] = frozenset(
    {
        "samples_per_s",
        "step_time_s",
        "peak_memory_bytes",
        "data_wait_fraction",
        "copy_fraction",
        "forward_backward_fraction",
        "optimizer_fraction",
        "energy_j_per_sample",
        "first_step_s",
    }
)
"""Values that only a trial can measure. The names are those of `best.yaml`, and `first_step_s` of a trial's record."""
OF_TEXT: Mapping[str, object] = {
    "amp_dtype": AmpDtype,
    "memory_format": MemoryFormat,
    "compile": CompileMode,
    "fp32_precision": Fp32Precision,
    "data_parallel": DataParallel,
}
"""Knobs whose values are words."""
WORDS: frozenset[str] = frozenset(word for choice in OF_TEXT.values() for word in get_args(choice)) - {"none"}
"""Values of categorical knobs, which need no quotes."""
LITERALS: Mapping[str, str] = {
    **dict.fromkeys(("true", "True", "TRUE"), "True"),
    **dict.fromkeys(("false", "False", "FALSE"), "False"),
    **dict.fromkeys(("none", "None", "null", "Null"), "None"),
}
RESERVED: frozenset[str] = (
    frozenset(KNOB_NAMES) | MEASURES | WORDS | set(LITERALS) | set(CONNECTIVES) | {EFFECTIVE_BATCH_SIZE, "custom"}
)
"""Names that a custom knob cannot have."""


class Vocabulary:
    """The names and the words that a constraint may use."""

    def __init__(self, custom: Collection[str]) -> None:
        values = custom.values() if isinstance(custom, Mapping) else ()
        texts = {str(value) for choice in values for value in choice if isinstance(value, str)}
        self.names = {*KNOB_NAMES, EFFECTIVE_BATCH_SIZE, *MEASURES, *custom}
        self.words = (WORDS | texts) - self.names - set(LITERALS) - set(CONNECTIVES)

    @property
    def hyphenated(self) -> list[str]:
        return [word for word in self.words if "-" in word and word.replace("-", "_").isidentifier()]
