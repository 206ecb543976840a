"""Puts the values of custom knobs into the arguments of the sections that say what is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from autotune.config import KnobValue
from autotune.spec.custom import ArgPath, CustomKnob
from autotune.spec.workload import DataSpec, ModelSpec, TrainingSpec

if TYPE_CHECKING:
    from autotune.spec.model import Spec

_KEYS_BEFORE_ARGUMENTS = 2
"""`model.args`, `data.args`, `training.optimizer`."""


def argument_flaws(
    knobs: Mapping[str, CustomKnob], model: ModelSpec, data: DataSpec, training: TrainingSpec
) -> Iterator[tuple[tuple[str, ...], str]]:
    """(path, message) for each knob whose argument does not exist in this spec."""
    given = {"model": model.args, "data": data.args, "training": training.optimizer.args}
    for name, knob in knobs.items():
        here = ("search", "custom", name, "arg")
        section, *keys = knob.path[0], *knob.path[_KEYS_BEFORE_ARGUMENTS:]
        if section == "data" and data.factory is None:
            yield here, "goes with data.factory only; the other sources have no args of their own"
        elif (broken := _no_mapping(given[section], keys)) is not None:
            where = ".".join((*knob.path[:_KEYS_BEFORE_ARGUMENTS], *keys[: broken + 1]))
            yield here, f"goes through {where}, whose value in the spec has no keys"


def value_at(spec: Spec, path: ArgPath, default: KnobValue) -> KnobValue:
    """The spec's own value at `path`; `default` if there is none, or more than one value."""
    found: Any = _arguments(spec, path)
    for key in path[_KEYS_BEFORE_ARGUMENTS:]:
        if not isinstance(found, Mapping) or key not in found:
            return default
        found = found[key]
    return found if found is None or isinstance(found, bool | int | float | str) else default


def with_arguments(spec: Spec, values: Mapping[str, KnobValue]) -> Spec:
    """`spec` with the values of custom knobs, by name, at their arguments. Raises KeyError on an unknown name."""
    for name, value in values.items():
        path = spec.search.custom[name].path
        arguments = _set(_arguments(spec, path), path[_KEYS_BEFORE_ARGUMENTS:], value)
        if path[0] == "training":
            optimizer = spec.training.optimizer.with_args(arguments)
            spec = spec.model_copy(update={"training": spec.training.model_copy(update={"optimizer": optimizer})})
        else:
            section = spec.model if path[0] == "model" else spec.data
            spec = spec.model_copy(update={path[0]: section.model_copy(update={"args": arguments})})
    return spec


def _arguments(spec: Spec, path: ArgPath) -> dict[str, Any]:
    if path[0] == "training":
        return spec.training.optimizer.args
    return spec.model.args if path[0] == "model" else spec.data.args


def _set(arguments: Mapping[str, Any], keys: ArgPath, value: KnobValue) -> dict[str, Any]:
    """A changed copy, because the mappings belong to the spec."""
    first, *rest = keys
    inner = value if not rest else _set(arguments.get(first) or {}, tuple(rest), value)
    return {**arguments, first: inner}


def _no_mapping(arguments: Any, keys: list[str]) -> int | None:
    """Index of the first key, except the last, whose value is not a mapping."""
    for index, key in enumerate(keys[:-1]):
        arguments = arguments.get(key)
        if arguments is None:
            return None
        if not isinstance(arguments, Mapping):
            return index
    return None
