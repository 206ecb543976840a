"""The keys of the spec as a tree, taken from the models: what a section allows, and where a misplaced key belongs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from autotune.spec.domains import EffectiveBatchRange, IntRange
from autotune.spec.model import Spec


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The model that a field's annotation holds, however deep in unions; None for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := section_of(part))), None)


def section_at(path: Sequence[str | int]) -> type[BaseModel] | None:
    """The model of the mapping at `path`; None where the spec has no such section."""
    section: type[BaseModel] | None = Spec
    for key in path:
        field = section.model_fields.get(str(key)) if section else None
        section = section_of(field.annotation) if field else None
    return section


def field_at(path: Sequence[str | int]) -> FieldInfo | None:
    section = section_at(path[:-1]) if path else None
    return section.model_fields.get(str(path[-1])) if section else None


def places_of(key: str) -> list[str]:
    """Every path in the spec that ends in `key`, outermost first; the bounds of ranges are no places."""
    return sorted((path for path in _paths(Spec, "") if path.split(".")[-1] == key), key=lambda path: path.count("."))


def _paths(section: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        inner = section_of(field.annotation)
        if inner and not issubclass(inner, IntRange | EffectiveBatchRange):
            yield from _paths(inner, f"{prefix}{name}.")
