"""Numbers as a person reads them."""

from __future__ import annotations

import math

import pytest

from autotune.stats import written


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (17083.4, "17,083"),
        (1412.3, "1,412"),
        (999.96, "1000"),
        (9.0, "9"),
        (0.03125, "0.03125"),
        (0.00001, "0.00001"),
        (-25000.0, "-25,000"),
        (0.0, "0"),
        (1e300, "1e+300"),
        (math.nan, "nan"),
        (math.inf, "inf"),
    ],
)
def test_no_number_that_a_person_can_read_has_an_exponent(value: float, text: str) -> None:
    assert written(value) == text


def test_digits() -> None:
    assert written(2345.6, 3) == "2,346"
    assert written(2.3456, 3) == "2.35"
