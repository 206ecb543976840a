"""What of a verdict stands in `best.yaml`."""

from __future__ import annotations

import math

import pytest
import yaml

from autotune.best_yaml import Gate
from autotune.records import Check
from autotune.search.emit import plain
from autotune.spec import dump_yaml


@pytest.mark.parametrize("value", [math.inf, math.nan, 1.5])
def test_a_value_that_is_not_finite_can_be_read_back(value: float) -> None:
    """Activations in fp16 have no other once they overflow, and whoever reads `best.yaml` refuses such a number."""
    (written,) = plain([Check(name="fp16_range", passed=False, value=value, limit=65504.0)])
    text = dump_yaml(written)
    assert ".inf" not in text and ".nan" not in text
    read = yaml.safe_load(text)
    assert float(read["value"]) == pytest.approx(value, nan_ok=True)
    assert Gate.model_validate(read).name == "fp16_range"
