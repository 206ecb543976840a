"""`search.custom`: the spec's own knobs; each is an argument of a factory or of the optimizer."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from autotune.config import KNOB_NAMES, KnobValue
from autotune.spec.domains import Choices
from autotune.spec.fields import Section
from autotune.spec.vocabulary import MEASURES, RESERVED
from autotune.untrusted import scalar

ARG_PATTERN = r"^((model|data)\.args(\.[A-Za-z_]\w*)+|training\.optimizer\.[A-Za-z_]\w*)$"
_SCALAR_SCHEMA = {"type": ["number", "string", "boolean", "null"]}
_NO_OPTIMIZER_ARGS = {
    "name": "the optimizer itself is held fixed",
    "factory": "the optimizer itself is held fixed",
    "lr": "it changes what is learned, which the search holds fixed",
    "fused": "that is the knob search.fused_optimizer",
}

ArgPath = tuple[str, ...]


Scalar = Annotated[Any, AfterValidator(scalar), WithJsonSchema(_SCALAR_SCHEMA)]


def _given(value: object) -> object:
    if value is None or isinstance(value, dict):
        raise ValueError("give the values as a list: [a, b]")
    if isinstance(value, list | tuple):
        _tell_apart([item for item in value if isinstance(item, bool | int | float)])
    return value


def _tell_apart(values: Sequence[KnobValue]) -> None:
    """Refuse values that Python treats as equal, such as 1, 1.0 and true: the record of tried values would mix them
    up."""
    seen: dict[KnobValue, KnobValue] = {}
    for value in values:
        if type(seen.setdefault(value, value)) is not type(value):
            raise ValueError(f"{_yaml(seen[value])} and {_yaml(value)} count as one value; give one of them")


def _yaml(value: KnobValue) -> str:
    return str(value).lower()


def _arg(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(ARG_PATTERN, value):
        shown = f", not '{value[:60]}'" if isinstance(value, str) else ""
        raise ValueError(f"must be model.args.KEY, data.args.KEY or training.optimizer.KEY{shown}")
    key = value.removeprefix("training.optimizer.")
    if key != value and key in _NO_OPTIMIZER_ARGS:
        raise ValueError(f"{value} cannot be searched: {_NO_OPTIMIZER_ARGS[key]}")
    return value


class CustomKnob(Section):
    """A knob of your own: an argument, and the values to try."""

    values: Annotated[Choices[Scalar], BeforeValidator(_given)]
    """Numbers, text, true, false or null, in an order in which neighbours behave alike, where they have one."""
    arg: Annotated[str, BeforeValidator(_arg), WithJsonSchema({"type": "string", "pattern": ARG_PATTERN})]
    """Where the value goes: `model.args.KEY`, `data.args.KEY` (of `data.factory`) or `training.optimizer.KEY`; those of
    factories may go deeper, as in `model.args.block.norm`."""

    @property
    def path(self) -> ArgPath:
        return tuple(self.arg.split("."))


def empty_is_none_given(value: object) -> object:
    return {} if value is None else value


CustomKnobs = Annotated[dict[str, CustomKnob], BeforeValidator(empty_is_none_given)]
CustomValues = Annotated[dict[str, Scalar], BeforeValidator(empty_is_none_given)]


def custom_flaws(knobs: Mapping[str, CustomKnob], baseline: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """(path, message) for each problem with names and arguments in `search.custom`, and with `baseline.custom`."""
    taken: dict[ArgPath, str] = {}
    for name, knob in knobs.items():
        here = ("search", "custom", name)
        if reason := _why_no_name(name):
            yield here, reason
        clash = next((other for path, other in taken.items() if _overlap(path, knob.path)), None)
        if clash is not None:
            yield (*here, "arg"), f"sets {knob.arg}, which {clash} sets already, through {knobs[clash].arg}"
        taken[knob.path] = name
    for name in baseline:
        if name not in knobs:
            near = get_close_matches(name, knobs, n=1)
            hint = f"did you mean {near[0]}?" if near else f"search.custom has {', '.join(knobs) or 'none'}"
            yield ("baseline", "custom", name), f"unknown knob; {hint}"


def _why_no_name(name: str) -> str | None:
    if not (name.isascii() and name.isidentifier()):
        return "a knob's name has only letters, digits and _, and does not begin with a digit: constraints use it"
    if keyword.iskeyword(name):
        return f"{name} is a keyword of Python, which constraints cannot use as a name; choose another name"
    if name not in RESERVED:
        return None
    kind = "a knob" if name in KNOB_NAMES else "a measure" if name in MEASURES else "a word of constraints"
    return f"{name} is {kind} already; choose another name"


def _overlap(path: ArgPath, other: ArgPath) -> bool:
    shorter = min(len(path), len(other))
    return path[:shorter] == other[:shorter]
