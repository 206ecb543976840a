"""The keys of the spec as a tree, from the models: what a section allows, and where a misplaced key belongs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from autotune.spec.ablation import FactorsSpec
from autotune.spec.domains import EffectiveBatchRange, IntRange
from autotune.spec.model import Spec


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The model in a field's annotation, also inside unions; None for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := section_of(part))), None)


def section_at(path: Sequence[str | int]) -> type[BaseModel] | None:
    """The model of the mapping at `path`; None if the spec has no such section."""
    section: type[BaseModel] | None = Spec
    named: type[BaseModel] | None = None
    for key in path:
        if named is not None:  # a mapping whose keys the user chooses: each is a section
            section, named = named, None
            continue
        field = section.model_fields.get(str(key)) if section else None
        section = section_of(field.annotation) if field else None
        if field and _is_mapping(field.annotation):
            section, named = None, section
    return section


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict


def field_at(path: Sequence[str | int]) -> FieldInfo | None:
    section = section_at(path[:-1]) if path else None
    return section.model_fields.get(str(path[-1])) if section else None


def places_of(key: str) -> list[str]:
    """Every path in the spec that ends in `key`, outermost first, without bounds of ranges and factors of an
    ablation."""
    return sorted((path for path in _paths(Spec, "") if path.split(".")[-1] == key), key=lambda path: path.count("."))


def _paths(section: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        inner = section_of(field.annotation)
        if inner and not issubclass(inner, IntRange | EffectiveBatchRange | FactorsSpec):
            yield from _paths(inner, f"{prefix}{name}.{'NAME.' * _is_mapping(field.annotation)}")
