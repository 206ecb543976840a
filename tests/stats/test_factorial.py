"""Contrasts against their textbook formula, and how often the intervals hold the truth."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from autotune.stats import Cell, cells, contrast, effects, mean_interval

ROUNDS, SEARCHES = 6, 300


def test_cells_and_effects_of_three_factors() -> None:
    assert len(cells(3)) == 8
    assert cells(3)[0] == (False, False, False)
    assert list(effects(3)) == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]


def test_a_main_effect_is_with_less_without() -> None:
    values = {(False, False): 1.0, (True, False): 3.0, (False, True): 10.0, (True, True): 16.0}
    assert contrast(values, (0,)) == pytest.approx(((3 - 1) + (16 - 10)) / 2)
    assert contrast(values, (1,)) == pytest.approx(((10 - 1) + (16 - 3)) / 2)


def test_an_interaction_is_by_how_much_an_effect_grows() -> None:
    values = {(False, False): 1.0, (True, False): 3.0, (False, True): 10.0, (True, True): 16.0}
    assert contrast(values, (0, 1)) == pytest.approx((16 - 10) - (3 - 1))


@pytest.mark.parametrize("factors", [1, 2, 3, 4])
def test_contrasts_are_those_of_a_regression(factors: int) -> None:
    """Least squares on ±1 codes: a main effect is twice its coefficient, one of two factors four times, and so on."""
    source = random.Random(factors)
    values = {cell: source.gauss(0, 1) for cell in cells(factors)}
    chosen = [(), *effects(factors)]
    codes = np.array([[np.prod([1 if cell[f] else -1 for f in one]) for one in chosen] for cell in values])
    fitted = np.linalg.lstsq(codes, np.array(list(values.values())), rcond=None)[0]
    for one, coefficient in zip(chosen[1:], fitted[1:], strict=True):
        assert contrast(values, one) == pytest.approx(2 ** len(one) * coefficient)


def test_what_a_whole_round_suffers_cancels() -> None:
    values = {cell: float(sum(cell)) for cell in cells(3)}
    shifted = {cell: value + 7.0 for cell, value in values.items()}
    assert all(contrast(shifted, one) == pytest.approx(contrast(values, one)) for one in effects(3))


def _measured(source: random.Random, truth: dict[Cell, float], *, outliers: float) -> dict[Cell, float]:
    """One round, as logarithms: the machine's mood, each process's own noise, and now and then a run at half speed."""
    mood = source.gauss(0, 0.1)
    return {
        cell: value + mood + source.gauss(0, 0.1) - (0.7 if source.random() < outliers else 0.0)
        for cell, value in truth.items()
    }


@pytest.mark.parametrize("outliers", [0.0, 0.02])
def test_the_intervals_of_all_effects_hold_together(outliers: float) -> None:
    source = random.Random(1)
    truth = {cell: 0.5 * cell[0] - 0.1 * cell[1] + 0.2 * (cell[0] and cell[2]) for cell in cells(3)}
    chosen = list(effects(3))
    held = 0
    for _ in range(SEARCHES):
        rounds = [_measured(source, truth, outliers=outliers) for _ in range(ROUNDS)]
        intervals = [mean_interval([contrast(r, one) for r in rounds], together=len(chosen)).interval for one in chosen]
        wanted = [contrast(truth, one) for one in chosen]
        held += all(i is not None and i.low <= w <= i.high for i, w in zip(intervals, wanted, strict=True))
    assert held / SEARCHES > 0.92


def test_one_value_has_no_interval() -> None:
    assert mean_interval([1.0]).interval is None


def test_more_side_by_side_are_wider() -> None:
    values = [1.0, 1.2, 0.9, 1.1]
    widths = [
        interval.high - interval.low for n in (1, 3, 7) if (interval := mean_interval(values, together=n).interval)
    ]
    assert all(narrow < wide for narrow, wide in itertools.pairwise(widths))
