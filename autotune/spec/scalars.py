"""The core schema of YAML 1.2: which plain scalars are not text. PyYAML itself follows YAML 1.1.

There `no` is a bool, `1e-3` a string, `12:30` the number 750 and `010` eight.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from yaml.nodes import ScalarNode
from yaml.resolver import BaseResolver

try:
    from yaml import CSafeDumper as SafeDumper  # four times as fast; a PyYAML built without libyaml lacks it
except ImportError:
    from yaml import SafeDumper  # type: ignore[assignment]

TAG = "tag:yaml.org,2002:"


_MAX_DIGITS = 300
"""Longer integers do not fit into a float, and Python refuses to print very long ones."""


class CoreResolver(BaseResolver):
    """Determines the type of plain scalars."""


_PATTERNS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    "merge": r"<<",
}
for _name, _pattern in _PATTERNS.items():
    CoreResolver.add_implicit_resolver(TAG + _name, re.compile(rf"(?:{_pattern})\Z"), None)
_MORE_THAN_TEXT = re.compile("|".join(_PATTERNS.values()))


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError("too many digits")
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_READERS: Mapping[str, Callable[[str], Any]] = {
    "str": str,
    "null": lambda _: None,
    "bool": _bool,
    "int": _int,
    "float": _float,
}


def scalar_value(kind: str, text: str) -> Any:
    """The value of `text`. Raises KeyError for a kind that the core schema lacks, ValueError for text that does not
    match its kind."""
    return _READERS[kind](text)


class _Dumper(SafeDumper):
    """Quotes text that either schema would read as another type; escapes characters that a line cannot contain."""


def _represent_text(dumper: SafeDumper, text: str) -> ScalarNode:
    style = "'" if _MORE_THAN_TEXT.fullmatch(text) else None if text.isprintable() else '"'
    return dumper.represent_scalar(f"{TAG}str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump_yaml(values: Any) -> str:
    """YAML in block style, with keys in their order; `parse_document` reads exactly these values again."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
