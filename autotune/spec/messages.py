"""Converts pydantic's errors to the project's messages: one flaw per mistake, at the position where the user wrote
it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from autotune.spec.advice import left_to_the_user, meant_key, meant_value
from autotune.spec.document import DocPath, Flaw
from autotune.spec.domains import FORM
from autotune.spec.fields import DEVICE_PATTERN, FACTORY_PATTERN, LOSS_PATTERN, NAME_PATTERN
from autotune.spec.outline import field_at, section_at

_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a value or a list of values",
    "model_type": "a mapping of keys to values",
    "dict_type": "a mapping of keys to values",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
_PATTERNS = {
    FACTORY_PATTERN: "a callable, as package.module:name",
    LOSS_PATTERN: "cross_entropy, or a callable, as package.module:name",
    DEVICE_PATTERN: "auto, cpu, cuda, cuda:1, mps or xpu",
    NAME_PATTERN: "letters, digits, '.', '_' and '-', the first a letter or digit: it names a folder",
}
_SHORTHAND = {
    "model": "{{timm: {}}}",
    "data": "{{image_folder: {{path: {}}}}}",
    "image_folder": "{{path: {}}}",
    "timm": "{{name: {}}}",
    "optimizer": "{{name: {}}}",
    "strategy": "{{name: {}}}",
    "execution": "{{backend: {}}}",
}
"""What to write for a section if only its main value was given."""


def flaws_of(error: ValidationError, values: Any) -> Iterator[Flaw]:
    """One flaw for each mistake in `values`, the document that did not validate."""
    for details in error.errors(include_url=False):
        yield _flaw(details, values)


def given(value: Any) -> str:
    """A value for a message: short, on one line, in YAML."""
    if isinstance(value, dict | list | tuple):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else f"{value[:59]}…")
    return "empty" if value is None else str(value).lower()[:60]


def _flaw(details: ErrorDetails, values: Any) -> Flaw:
    kind, loc, context = details["type"], details["loc"], details.get("ctx", {})
    if kind == "extra_forbidden":
        path = (*_untagged(loc[:-1]), str(loc[-1]))
        return Flaw(path, _unknown_key(path), at_key=True)
    path = _untagged(loc)
    if kind == "missing":
        field = field_at(path)
        return Flaw(path, f"is missing{f': {_first_line(field.description)}' if field and field.description else ''}")
    if kind == "located":
        return Flaw(written((*path, *context["path"]), values), context["message"])
    path = _written(path, values)
    if kind == "value_error":
        return Flaw(path, str(context["error"]))
    return Flaw(path, _wrong_value(kind, path, details["input"], context, details["msg"]))


def _first_line(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())


def _untagged(loc: DocPath) -> DocPath:
    """The path without pydantic's names for the branches of a union."""
    return tuple(part for part in loc if not (isinstance(part, str) and part.startswith(FORM)))


def written(path: DocPath, values: Any) -> DocPath:
    """`path`, without the index of an item if no list was written."""
    return _written(path, values) if path and isinstance(path[-1], int) else path


def _written(path: DocPath, values: Any) -> DocPath:
    """The part of `path` that the document has: `search.amp_dtype.0` is `search.amp_dtype` when no list was written."""
    for depth, part in enumerate(path):
        children = dict(enumerate(values)) if isinstance(values, list) else values
        if not isinstance(children, dict) or part not in children:
            return path[:depth]
        values = children[part]
    return path


def _unknown_key(path: DocPath) -> str:
    section = section_at(path[:-1])
    allowed = list(section.model_fields) if section else []
    key, above = str(path[-1]), ".".join(str(part) for part in path[:-1])
    left = left_to_the_user(key, above)
    return f"is left to your own code: {left}" if left else f"unknown key; {meant_key(key, above, allowed)}"


def _wrong_value(kind: str, path: DocPath, value: Any, context: Mapping[str, Any], said: str) -> str:
    field = next((part for part in reversed(path) if isinstance(part, str)), "")
    if kind == "literal_error":
        return _not_allowed(field, value, context)
    if kind in _BOUNDS:
        return _out_of_bounds(kind, value, context)
    if kind == "string_pattern_mismatch":
        wanted = _PATTERNS[context["pattern"]]
        meant = meant_value(field, value, ("auto", "cpu", "cuda", "mps", "xpu", "cross_entropy"))
        hint = f"; did you mean {meant}?" if meant and meant in wanted else ""
        return f"must be {wanted}, not {given(value)}{hint}"
    if kind == "string_too_long":
        return f"must be at most {context['max_length']} characters long"
    if kind in _TYPES:
        hint = _leave_out(path) if value is None else _type_hint(kind, field, value)
        return f"must be {_TYPES[kind]}, not {given(value)}{hint}"
    return said


def _not_allowed(field: str, value: Any, context: Mapping[str, Any]) -> str:
    wanted = str(context["expected"])
    allowed = wanted.replace("'", "").replace(" or ", ", ").split(", ")
    if field == "effective_batch_size":
        wanted = "a whole number, {min: …, max: …}, baseline or free"
    elif len(allowed) > 1:
        wanted = f"one of {', '.join(allowed)}"
    else:
        wanted = allowed[0]
    meant = meant_value(field, value, allowed)
    hint = f"; did you mean {meant}?" if meant else ""
    if field == "amp_dtype" and meant == "none":
        hint = "; write none (quoted or not) for no AMP"
    elif field == "amp_dtype" and value is True:
        hint = "; write bf16 or fp16"
    return f"must be {wanted}, not {given(value)}{hint}"


def _out_of_bounds(kind: str, value: Any, context: Mapping[str, Any]) -> str:
    name, words = _BOUNDS[kind]
    bound = int(context[name]) if float(context[name]).is_integer() else context[name]
    if kind == "greater_than" and isinstance(value, int) and isinstance(context[name], int):
        bound, words = bound + 1, "at least"
    hint = f"; it is a share: {value:g} % is {value / 100:g}" if kind == "less_than" and value <= 100 else ""
    return f"must be {words} {bound}, not {given(value)}{hint}"


def _leave_out(path: DocPath) -> str:
    field = field_at(path)
    return "; leave the key out for its default" if field and not field.is_required() else ""


def _type_hint(kind: str, field: str, value: Any) -> str:
    if kind == "bool_type":
        meant = {"yes": "true", "on": "true", "1": "true", "no": "false", "off": "false", "0": "false"}
        word = meant.get(str(value).lower()) or (str(value).lower() if isinstance(value, str) else "")
        return f"; write {word}" if word in ("true", "false") else ""
    if kind in ("int_type", "float_type"):
        return _number_hint(kind, value)
    if kind == "string_type" and isinstance(value, int | float):
        return f"; put it in quotes: '{value}'"
    if kind == "model_type" and isinstance(value, str) and field in _SHORTHAND:
        shorthand = "{{factory: {}}}" if field in ("model", "data") and ":" in value else _SHORTHAND[field]
        return f"; write {shorthand.format(value)}"
    return ""


def _number_hint(kind: str, value: Any) -> str:
    """A hint for numbers that are written as another type."""
    if isinstance(value, float) and value.is_integer():
        return f"; write {value:.0f}"
    text = value.replace("_", "").strip() if isinstance(value, str) else ""
    try:
        number = int(text) if kind == "int_type" else float(text)
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    return f"; write {number} without quotes" if text == value else f"; write {number}"
