"""What all records share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from autotune.config import TrainConfig


class Record(BaseModel):
    """Base of all records: frozen, no extra fields, and able to store a NaN loss in JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


def _from_dict(value: Any) -> Any:
    return TrainConfig.from_dict(value) if isinstance(value, dict) else value


Config = Annotated[TrainConfig, BeforeValidator(_from_dict), PlainSerializer(TrainConfig.to_dict)]
"""A configuration, written as in `best.yaml`: custom knobs as a mapping, left out if there are none."""
