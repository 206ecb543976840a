"""Locations and noise scales from a few values: Student's t where the prior says little, and what outliers do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t

from autotune.stats import Posterior
from autotune.stats.likelihood import SCALES, Values
from autotune.stats.noise import Scale
from autotune.stats.posterior import locate


def normal(count: int, noise: float, seed: int = 0) -> Values:
    return np.random.default_rng([seed, count]).normal(0, noise, count)


def width(found: Posterior, tail: float = 0.025) -> float:
    low, high = found.quantiles(tail, 1 - tail)
    return high - low


@pytest.mark.parametrize("count", [8, 20, 45])
def test_of_many_well_behaved_values_it_is_students_interval(count: int) -> None:
    """With the prior flat over the scales that matter, and few outliers believed in."""
    values = normal(count, 0.03)
    low, high = locate(values, Scale.unknown()).quantiles(0.025, 0.975)
    error = float(values.std(ddof=1)) / math.sqrt(count)
    students = t.interval(0.95, count - 1, loc=float(values.mean()), scale=error)
    assert (low, high) == pytest.approx(students, abs=0.25 * error)


def test_two_values_that_agree_do_not_leave_every_noise_open() -> None:
    """Student's t with one degree of freedom: 12.7 standard errors either way."""
    found = locate(np.array([0.0, 0.1]), Scale.unknown())
    assert found.below(0.05) == pytest.approx(0.5, abs=0.01)
    assert 0.2 < width(found) < 0.6 * 2 * 12.7 * 0.05


def test_what_other_series_show_of_the_noise_narrows_the_interval() -> None:
    two = np.array([0.0, 0.01])
    alone = locate(two, Scale.unknown())
    learnt = Scale.unknown().learnt_from(normal(4, 0.01, 1)).learnt_from(normal(4, 0.01, 2)).of_another()
    assert width(locate(two, learnt)) < 0.6 * width(alone)


def test_a_series_that_is_noisier_than_the_others_is_believed_to_be() -> None:
    quiet = Scale.unknown().learnt_from(normal(6, 0.01, 1)).learnt_from(normal(6, 0.01, 2)).of_another()
    noisy = normal(6, 0.06, 3)
    assert locate(noisy, quiet).noise.middle() > 3 * quiet.middle()


def test_the_scale_of_a_long_series_is_found() -> None:
    for noise in (0.003, 0.03, 0.2):
        assert Scale.unknown().learnt_from(normal(200, noise)).middle() == pytest.approx(noise, rel=0.25)


def test_before_any_value_the_scale_may_be_anything_but_the_impossible() -> None:
    density = Scale.unknown().density()
    assert density[SCALES < 0.17].min() == density[SCALES < 0.17].max() == 1.0
    assert density[SCALES > 0.6].max() < 0.1


def test_a_slow_outlier_moves_the_middle_little_and_a_run_that_is_fast_is_no_outlier_of_the_usual_kind() -> None:
    values = np.array([0.0, 0.004, -0.003, 0.002, -0.5])
    found = locate(values, Scale.unknown(), slow_only=True)
    assert abs(found.quantiles(0.5)[0]) < 0.004
    assert width(found) < 0.1
    two = locate(np.array([0.0, -0.5]), Scale.unknown().learnt_from(normal(6, 0.01)).over_rounds(), slow_only=True)
    assert two.below(-0.25) < 0.4, "of two, the slow one is the less likely"


def test_rounds_add_to_the_noise_and_never_take_from_it() -> None:
    inside = Scale.unknown().learnt_from(normal(30, 0.02))
    assert inside.over_rounds().middle() > 1.2 * inside.middle()


def test_one_more_value_lies_where_its_location_and_its_noise_let_it() -> None:
    found = locate(normal(40, 0.05), Scale.unknown())
    low, high = found.of_one_more(0.0).quantiles(0.025, 0.975)
    assert (high - low) / 2 == pytest.approx(1.96 * 0.05, rel=0.25)
    assert width(found.of_one_more(0.2)) == pytest.approx(2 * 1.96 * math.hypot(0.05, 0.2), rel=0.1)


def test_a_single_value_has_the_spread_of_one_more() -> None:
    noise = Scale.unknown().learnt_from(normal(100, 0.05))
    one = Posterior.of_one(1.0, noise, 0.0)
    assert one.quantiles(0.5)[0] == pytest.approx(1.0)
    assert width(one) == pytest.approx(2 * 1.96 * 0.05, rel=0.25)


def test_a_difference_has_both_variances() -> None:
    one, other = (locate(1.0 + normal(30, 0.05, seed), Scale.unknown()) for seed in (1, 2))
    found = one.less(other)
    assert found.quantiles(0.5)[0] == pytest.approx(one.quantiles(0.5)[0] - other.quantiles(0.5)[0], abs=0.002)
    assert width(found) == pytest.approx(math.hypot(width(one), width(other)), rel=0.05)
    assert other.less(one).below(0.0) == pytest.approx(1 - found.below(0.0), abs=0.01)


def test_a_hundred_values_are_no_more_trouble_than_ten() -> None:
    found = locate(normal(150, 0.001), Scale.unknown())
    assert width(found) == pytest.approx(2 * 1.96 * 0.001 / math.sqrt(150), rel=0.3)


def test_values_that_are_all_the_same_have_an_interval_all_the_same() -> None:
    found = locate(np.full(5, 0.25), Scale.unknown())
    assert found.quantiles(0.5)[0] == pytest.approx(0.25)
    assert 0 < width(found) < 0.003


@pytest.mark.parametrize("middle", [-0.1, 0.0, 0.03, 0.2])
def test_the_expected_loss_is_the_integral_it_stands_for(middle: float) -> None:
    """Of a mean of very many values it is known as a normal's: E[max(0, −x)]."""
    values = normal(4, 0.05) + middle
    found = locate(values, Scale.unknown().learnt_from(normal(400, 0.05)))
    grid = np.linspace(*found.quantiles(1e-6, 1 - 1e-6), 4001)
    below = np.array([found.below(float(place)) for place in grid])
    integral = float(np.trapezoid(np.where(grid < 0, below, 0.0), grid))
    assert found.expected_loss() == pytest.approx(integral, rel=0.03, abs=2e-4)
    assert found.expected_loss() >= max(0.0, -float(np.dot(found.shares, found.places))) - 1e-9
