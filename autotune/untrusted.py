"""Reads files that somebody else may have written: only plain YAML, and values are checked before they are used.

Results are passed between people. Import this module only when a file is read: pydantic takes a tenth of a second,
which is too long for `import autotune`.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import stat
import zlib
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from yaml.constructor import ConstructorError
from yaml.nodes import Node, ScalarNode

_MOST_BYTES = 20_000_000
"""No result is longer."""
_MOST_DIGITS = 300
"""Longer integers do not fit into a float, and Python refuses to print very long ones."""
_MOST_SHOWN = 60
_TAG = "tag:yaml.org,2002:"


class Checked(BaseModel):
    """Base of models for files: no conversion of types. Keys that this version does not know are ignored, because a
    newer version may know them."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore", defer_build=True)


_Model = TypeVar("_Model", bound=BaseModel)


def check(model: type[_Model], values: object) -> _Model:
    """`values`, validated by `model`. Raises ValueError with one line: the first wrong key, and what is allowed
    there."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ValueError(problem(error)) from None


def problem(error: ValidationError) -> str:
    """One line: the first wrong key, and what is allowed there."""
    first, *others = error.errors(include_url=False)
    more = f" ({len(others)} more)" if others else ""
    return f"{'.'.join(map(_shown_key, first['loc']))} {_wrong(first)}{more}".strip()


def _wrong(details: ErrorDetails) -> str:
    if details["type"] == "missing":
        return "is missing"
    if details["type"] == "extra_forbidden":
        return "is not a key that this version knows"
    if details["type"] in _WORDS:
        wanted = _WORDS[details["type"]].format(**details.get("ctx", {}))
    else:
        wanted = details["msg"].replace("Input should be", "must be")
    if details["type"] == "value_error":
        return str(details["ctx"]["error"])
    return f"{wanted}, not {_shown(details['input'])}"


_WORDS = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_unicode": "must be text",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "greater_than": "must be more than {gt}",
    "string_pattern_mismatch": "must look like {pattern}",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "list_type": "must be a list",
}
"""Replacements for messages of pydantic that use names of Python types."""


def _shown_key(key: int | str) -> str:
    text = str(key)
    return text if text.isprintable() and len(text) <= _MOST_SHOWN else _shown(text)


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value[: _MOST_SHOWN + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"


def scalar(value: object) -> object:
    """A validator for the value of a knob."""
    if value is not None and not isinstance(value, bool | int | float | str):
        kind = "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else "that"
        raise ValueError(f"must be a number, text, true, false or null, not {kind}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable text")
    return text


Scalar = Annotated[Any, AfterValidator(scalar)]
Line = Annotated[str, AfterValidator(_one_line)]
"""Text that every terminal and every file treats as one line."""


class _Loader(yaml.SafeLoader):
    """Numbers, text, true, false, null, lists and mappings; no aliases, which can make a page of text a terabyte."""

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            raise ConstructorError(None, None, "an alias, which no result has", event.start_mark)
        return super().compose_node(parent, index)


def _int(loader: _Loader, node: ScalarNode) -> int:
    if len(node.value) > _MOST_DIGITS:
        raise ConstructorError(None, None, f"a number of more than {_MOST_DIGITS} digits", node.start_mark)
    return int(loader.construct_yaml_int(node))


def _float(loader: _Loader, node: ScalarNode) -> float:
    value = float(loader.construct_yaml_float(node))
    if not math.isfinite(value):
        raise ConstructorError(None, None, f"a number that is not finite, {value}", node.start_mark)
    return value


def _text(_loader: _Loader, node: ScalarNode) -> str:
    return str(node.value)


def _other(_loader: _Loader, node: Node) -> Any:
    raise ConstructorError(None, None, f"the type {node.tag.replace(_TAG, '!!')}, which no result has", node.start_mark)


_PLAIN = ("null", "bool", "str", "seq", "map")
_Loader.yaml_constructors = {f"{_TAG}{name}": yaml.SafeLoader.yaml_constructors[f"{_TAG}{name}"] for name in _PLAIN}
_Loader.add_constructor(f"{_TAG}int", _int)
_Loader.add_constructor(f"{_TAG}float", _float)
_Loader.add_constructor(f"{_TAG}timestamp", _text)
_Loader.add_constructor(None, _other)  # stands for every other tag


def read_bytes(path: Path, most: int = _MOST_BYTES) -> bytes:
    """The file at `path`. Raises ValueError in one line for one of more than `most` bytes, and for what is no file: a
    pipe keeps its reader waiting, a device has no end. Raises OSError."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        raw = file.read(most + 1)
    return _bounded(raw, most)


def read_gzip(path: Path, most: int) -> bytes:
    """What the gzip file at `path` holds. Raises ValueError in one line where that is damaged or more than `most`
    bytes, and OSError."""
    packed = read_bytes(path, most)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            return _bounded(file.read(most + 1), most)
    except (EOFError, zlib.error) as error:
        raise ValueError(str(error)) from None


def _bounded(content: bytes, most: int) -> bytes:
    if len(content) > most:
        raise ValueError(f"over {most // 1_000_000} MB long")
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in the file at `path`. Raises ValueError in one line, and OSError."""
    try:
        document = yaml.load(read_bytes(path).decode("utf-8"), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError(f"it holds a {type(document).__name__}, not a mapping")
    if not all(isinstance(key, str) for key in document):
        raise ValueError("a key that is not text")
    return document
