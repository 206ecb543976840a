"""The types of single fields: what a value may look like in YAML, and what it becomes."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from autotune.spec.durations import format_duration, parse_duration

MIN_BUDGET_S = 10.0
"""A shorter budget is not enough for PyTorch's import and one baseline trial, on any machine so far."""

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""NumPy accepts at most 32 bits."""


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys, no conversion of types; an empty section has all its defaults."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_not_given(cls, value: Any) -> Any:
        return {} if value is None else value


def located(path: tuple[str | int, ...], message: str) -> PydanticCustomError:
    """The error for a validator to raise if not the whole section is wrong, but `path` inside it."""
    return PydanticCustomError("located", "{message}", {"message": message, "path": path})


def _budget(value: object) -> float:
    seconds = parse_duration(value)
    if seconds < MIN_BUDGET_S:
        raise ValueError(
            f"{format_duration(seconds)} is too short: starting PyTorch and measuring the baseline take longer; "
            f"give at least {format_duration(MIN_BUDGET_S)}, better 2m or more"
        )
    return seconds


Budget = Annotated[
    float,
    BeforeValidator(_budget),
    PlainSerializer(format_duration),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(?=.*\d)\s*(\d+(\.\d+)?\s*h)?\s*(\d+(\.\d+)?\s*m)?\s*(\d+(\.\d+)?\s*s)?\s*$",
            "examples": ["90s", "10m", "1h30m"],
        }
    ),
]

_NAMES = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
_CALLABLE = rf"{_NAMES}:{_NAMES}"
FACTORY_PATTERN = rf"^{_CALLABLE}$"
LOSS_PATTERN = rf"^(cross_entropy|{_CALLABLE})$"
DEVICE_PATTERN = r"^(auto|cpu|cuda(:\d+)?|mps|xpu(:\d+)?)$"
NAME_PATTERN = r"^[A-Za-z0-9][\w.-]*$"


def _importable(path: str) -> str:
    """Refuse Python's keywords: no module can have the path `a:import`."""
    for name in re.split("[.:]", path):
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"must be a callable, as package.module:name; '{name}' is not a name in Python")
    return path


FactoryPath = Annotated[str, StringConstraints(pattern=FACTORY_PATTERN), AfterValidator(_importable)]
"""`package.module:callable`; the spec's own folder is importable."""
Loss = Annotated[str, StringConstraints(pattern=LOSS_PATTERN), AfterValidator(_importable)]
Device = Annotated[str, StringConstraints(pattern=DEVICE_PATTERN)]
StudyName = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=100)]


def _folder(value: object, info: ValidationInfo) -> object:
    """An absolute path, if the validation context contains the spec's `folder`."""
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("must be the path of a folder")
    try:
        path = Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{value}: {error}") from None
    return info.context["folder"] / path if info.context else path


Folder = Annotated[Path, BeforeValidator(_folder, json_schema_input_type=str)]
