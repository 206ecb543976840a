"""The spec's JSON Schema, for editors: completion, descriptions and a first check while typing."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from autotune.spec.model import Spec


def json_schema() -> dict[str, Any]:
    """Draft 2020-12. Accepts what `load_spec` accepts, but does not check rules that span several keys."""
    schema = Spec.model_json_schema(mode="validation")
    knobs = schema["$defs"]["SearchSpec"]["properties"]
    for section in ("BaselineSpec", "FactorsSpec"):
        for name, field in schema["$defs"][section]["properties"].items():
            field.setdefault("description", knobs[name]["description"])
    return {"$schema": GenerateJsonSchema.schema_dialect, **_plain(schema), "title": "autotune spec"}


def _plain(node: Any) -> Any:
    """Remove pydantic's generated titles and null defaults; a section with defaults may be empty."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node and "default" in node:
        return {"anyOf": [{"$ref": node["$ref"]}, {"type": "null"}]}
    return {key: _plain(value) for key, value in node.items() if not _is_noise(key, value)}


def _is_noise(key: str, value: Any) -> bool:
    return (key == "title" and isinstance(value, str)) or (key == "default" and value is None)
