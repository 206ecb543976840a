"""The two pages that nobody writes by hand: the keys of a spec, from its JSON Schema; the commands, from click.

`conf.py` puts them where a page says `<!-- generated: spec -->` or `<!-- generated: commands -->`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import click

_Schema = dict[str, Any]
_LIMITS = {"exclusiveMinimum": "> {}", "minimum": "≥ {}", "exclusiveMaximum": "< {}", "maximum": "≤ {}"}
_PATTERNS = {"[A-Za-z_]": "`package.module:callable`", "auto": "a device", "h)": "a duration"}
"""Part of a pattern → what it means."""
_TOP = "Top level"


def spec_reference(schema: _Schema) -> str:
    """A heading and a table for each section, in the order of the document."""
    return "\n".join(_section(_TOP, schema, schema["$defs"], depth=2))


def command_reference(group: click.Group) -> str:
    """A heading, the usage and a table of options for each command."""
    whole = click.Context(group, info_name="autotune", **group.context_settings)
    return "\n".join(line for name, command in group.commands.items() for line in _command(name, command, whole))


def _section(path: str, section: _Schema, known: _Schema, depth: int) -> Iterator[str]:
    """The table of `section`, then those of the sections inside it."""
    yield from (f"{'#' * depth} {path if path == _TOP else f'`{path}`'}", "")
    if path != _TOP:
        yield from (_sentence(section.get("description", "")), "")
    yield from ("| key | value | default | meaning |", "|---|---|---|---|")
    inner = []
    for key, field in section["properties"].items():
        found = _reference(field)
        if found is not None and known[found].get("properties"):
            inner.append((key if path == _TOP else f"{path}.{key}", known[found]))
        yield _row(key, field, known, required=key in section.get("required", ()))
    yield ""
    for name, found in inner:
        yield from _section(name, found, known, depth + 1 if path != _TOP else depth)


def _row(key: str, field: _Schema, known: _Schema, *, required: bool) -> str:
    found = _reference(field)
    meaning = field.get("description") or (known[found].get("description", "") if found else "")
    cells = (f"`{key}`", _values(field, known), _default(field, required=required), _sentence(meaning))
    return f"| {' | '.join(cell.replace('|', '·') for cell in cells)} |"


def _default(field: _Schema, *, required: bool) -> str:
    if required:
        return "**required**"
    default = field.get("default")
    if default in (None, [], {}, ()):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _values(field: _Schema, known: _Schema) -> str:
    """What may stand there: `integer > 0`, `none`, `bf16`, a section."""
    return ", or ".join(dict.fromkeys(_alternatives(field, known)))


def _alternatives(field: _Schema, known: _Schema) -> Iterator[str]:
    if "$ref" in field:
        found = known[field["$ref"].rpartition("/")[2]]
        inner = found.get("properties", {})
        yield f"`{{{', '.join(inner)}}}`" if set(inner) <= {"min", "max", "step", "values", "arg"} else "a section"
    for each in (*field.get("anyOf", ()), *field.get("oneOf", ())):
        yield from _alternatives(each, known)
    if "enum" in field:
        yield ", ".join(f"`{value}`" for value in field["enum"])
    elif "const" in field:
        yield f"`{field['const']}`"
    elif field.get("type") == "array":
        yield f"a list of {_values(field.get('items', {}), known)}" if field.get("items") else "a list"
    elif field.get("type") == "object":
        yield "a mapping"
    elif field.get("type") not in (None, "null"):
        yield _scalar(field)


def _scalar(field: _Schema) -> str:
    kind = {"string": "text", "boolean": "`true`, `false`"}.get(field["type"], field["type"])
    pattern = next((text for part, text in _PATTERNS.items() if part in field.get("pattern", "")), None)
    if "cross_entropy" in field.get("pattern", ""):
        pattern = "`cross_entropy`, `package.module:function`"
    limits = [text.format(field[limit]) for limit, text in _LIMITS.items() if limit in field]
    return pattern or " ".join([kind, *limits])


def _reference(field: _Schema) -> str | None:
    """The one section that `field` is, if it is one."""
    found = [each["$ref"] for each in (field, *field.get("anyOf", ())) if "$ref" in each]
    return found[0].rpartition("/")[2] if len(found) == 1 else None


def _sentence(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _command(name: str, command: click.Command, whole: click.Context) -> Iterator[str]:
    context = click.Context(command, parent=whole, info_name=name)
    yield from (f"## `autotune {name}`", "", "```text", command.get_usage(context), "```", "")
    yield from (re.sub(r"[ \t]*\n[ \t]*", "\n", (command.help or "").strip()), "")
    options = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    records = [each.get_help_record(context) for each in options if "--help" not in each.opts]
    if records:
        yield from ("| option | does |", "|---|---|")
    for option, does in filter(None, records):
        yield f"| `{option.replace('|', '·')}` | {_sentence(does).replace('|', '·')} |"
    yield ""
