"""Gates on the first gradient, against the one of plain arithmetic."""

from __future__ import annotations

import math

import pytest
from support.runs import gradient

from autotune.records import FirstGradient
from autotune.search.gates import first_gradient_cosine, gradient_underflow

NEITHER_OR_ONE = [(None, None), (gradient(), None), (None, gradient())]


def test_the_same_gradient_passes_at_any_length() -> None:
    check = first_gradient_cosine(gradient([6.0, 8.0], norm=10.0), gradient([3.0, 4.0], norm=5.0))
    assert check.passed
    assert check.conclusive
    assert (check.value, check.limit) == (1.0, 0.99)
    assert check.detail == "norm 10, the reference's 5"


def test_a_gradient_that_points_elsewhere_warns_but_refuses_nothing() -> None:
    check = first_gradient_cosine(gradient([1.0, 1.0]), gradient([1.0, 0.0]))
    assert check.value == pytest.approx(math.sqrt(0.5), abs=1e-6)
    assert (check.passed, check.warns_only, check.holds) == (False, True, True)


@pytest.mark.parametrize(
    ("ours", "passes"), [([99.0, 13.0, 5.0, 2.0, 1.0], True), ([98.9, 13.0, 5.0, 2.0, 1.0], False)]
)
def test_the_limit_itself_passes(ours: list[float], passes: bool) -> None:
    """99² + 13² + 5² + 2² + 1² = 100²: a cosine of 0.99 without rounding."""
    assert first_gradient_cosine(gradient(ours), gradient([1.0, 0.0, 0.0, 0.0, 0.0])).passed is passes


def test_a_gradient_that_vanished_has_no_direction() -> None:
    check = first_gradient_cosine(gradient([0.0, 0.0], norm=0.0, zero_share=1.0), gradient())
    assert (check.passed, check.value) == (False, 0.0)


def test_gradients_that_underflow_fail() -> None:
    check = gradient_underflow(gradient(zero_share=0.45), gradient(zero_share=0.25))
    assert not check.holds
    assert check.value == pytest.approx(0.20)
    assert check.limit == 0.05


def test_a_gradient_that_is_all_zero_fails() -> None:
    assert not gradient_underflow(gradient([0.0, 0.0], norm=0.0, zero_share=1.0), gradient()).holds


def test_zeros_that_the_reference_has_as_well_are_the_models_own() -> None:
    """Dead units, and embeddings of words that did not come up."""
    check = gradient_underflow(gradient(zero_share=0.97), gradient(zero_share=0.97))
    assert check.passed
    assert check.conclusive
    assert check.value == 0.0
    assert gradient_underflow(gradient(zero_share=0.1), gradient(zero_share=0.9)).value == 0.0


@pytest.mark.parametrize(("share", "passes"), [(0.05, True), (0.0501, False)])
def test_one_element_in_twenty_may_underflow(share: float, passes: bool) -> None:
    assert gradient_underflow(gradient(zero_share=share), gradient()).passed is passes


@pytest.mark.parametrize(("probe", "reference"), NEITHER_OR_ONE)
def test_without_both_gradients_there_is_nothing_to_compare(
    probe: FirstGradient | None, reference: FirstGradient | None
) -> None:
    for check in (first_gradient_cosine(probe, reference), gradient_underflow(probe, reference)):
        assert (check.passed, check.conclusive, check.detail) == (True, False, "no gradient to compare")
