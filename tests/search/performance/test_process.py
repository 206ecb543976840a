"""The additive Gaussian process: what it interpolates, what it learns across knobs, how it judges itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad

from autotune.search.performance.process import AdditiveProcess, Array, Rows, Scales, Told
from autotune.search.performance.repeats import Repeats

IDENTITY = [np.eye(2), np.eye(3)]
SCALES = Scales(
    mains=(0.3, 0.3),
    pairs=0.05,
    trend=0.1,
    knee=0.2,
    curve=0.1,
    curve_by_knob=0.12,
    accumulation=0.03,
    residual=0.03,
    noise=0.05,
)


def rows(codes: list[tuple[int, int]], batch: list[float], accum: list[float] | None = None) -> Rows:
    count = len(codes)
    return Rows(
        np.array(codes, dtype=np.intp),
        np.log2(np.array(batch)),
        np.log2(np.array(accum or [1.0] * count)),
        np.zeros(count),
    )


def fitted(at: Rows, values: Array, error: float = 0.01) -> AdditiveProcess:
    process = AdditiveProcess(IDENTITY, SCALES)
    process.fit(at, values, np.full(len(values), error))
    return process


def test_it_goes_through_what_it_was_told_and_knows_less_elsewhere() -> None:
    at = rows([(0, 0), (1, 0)], [8, 8])
    process = fitted(at, np.array([-5.0, -5.5]))
    mean, doubt = process.predict(at)
    np.testing.assert_allclose(mean, [-5.0, -5.5], atol=0.05)
    _, far = process.predict(rows([(1, 2)], [256]))
    assert far[0] > 3 * doubt.max()


def test_effects_of_two_knobs_add_up() -> None:
    """Three corners of a square tell the fourth."""
    process = fitted(rows([(0, 0), (1, 0), (0, 1)], [8, 8, 8]), np.array([-5.0, -5.4, -5.3]))
    mean, doubt = process.predict(rows([(1, 1)], [8]))
    assert mean[0] == pytest.approx(-5.7, abs=0.1)
    assert doubt[0] < 0.4


def test_the_mean_alone_is_the_same_as_with_the_doubt() -> None:
    process = fitted(rows([(0, 0), (1, 2)], [8, 64]), np.array([-5.0, -5.2]))
    asked = rows([(0, 1), (1, 1), (0, 2)], [4, 8, 512], [1, 2, 4])
    np.testing.assert_allclose(process.mean(asked), process.predict(asked)[0])


def test_the_variance_agrees_with_the_covariance_of_a_row_with_itself() -> None:
    process = fitted(rows([(0, 0)], [8]), np.array([-5.0]))
    asked = rows([(0, 0), (1, 2), (0, 1)], [8, 3, 512], [1, 2, 4])
    np.testing.assert_allclose(process._own_variance(asked), np.diag(process._between(asked, asked)))


def test_leaving_one_out_is_what_fitting_without_it_gives() -> None:
    rng = np.random.default_rng(0)
    codes = [(int(a), int(b)) for a, b in zip(rng.integers(0, 2, 5), rng.integers(0, 3, 5), strict=True)]
    at, values = rows(codes, [4, 8, 16, 32, 64]), rng.normal(-5, 0.3, 5)
    errors = fitted(at, values).leave_one_out()
    without = rows(codes[1:], [8, 16, 32, 64])
    mean, _ = fitted(without, values[1:]).predict(rows(codes[:1], [4]))
    assert errors[0] == pytest.approx(values[0] - mean[0])


def test_noise_is_learnt_from_values_that_scatter() -> None:
    rng = np.random.default_rng(1)
    at = rows([(0, 0)] * 40, [8] * 40)
    quiet = fitted(at, -5 + 0.005 * rng.normal(size=40), error=0.0)
    loud = fitted(at, -5 + 0.2 * rng.normal(size=40), error=0.0)
    assert loud.noise > 3 * quiet.noise


def test_what_two_configurations_share_is_in_their_covariance() -> None:
    process = fitted(rows([(0, 0), (1, 0)], [8, 8]), np.array([-5.0, -5.5]))
    asked, other = rows([(1, 2), (0, 1)], [64, 8]), rows([(1, 2)], [32])
    joint = process.covariance(asked, asked)
    _, doubt = process.predict(asked)
    np.testing.assert_allclose(np.sqrt(np.diag(joint)), doubt)
    near, far = process.covariance(asked, other)[:, 0]
    assert joint[0, 0] > near > far


def test_without_any_knob_it_is_a_curve_over_the_batch() -> None:
    process = AdditiveProcess([], replace(SCALES, mains=()))
    at = Rows(np.zeros((3, 0), dtype=np.intp), np.log2([8.0, 32.0, 128.0]), np.zeros(3), np.zeros(3))
    process.fit(at, np.log(1 + 8 / np.array([8.0, 32.0, 128.0])), np.full(3, 0.01))
    between = Rows(np.zeros((1, 0), dtype=np.intp), np.log2([16.0]), np.zeros(1), np.zeros(1))
    assert process.mean(between)[0] == pytest.approx(np.log(1.5), abs=0.05)


def test_asking_before_fitting_says_so() -> None:
    with pytest.raises(ValueError, match="fit comes first"):
        AdditiveProcess([], replace(SCALES, mains=())).predict(rows([], []))


def test_a_mean_of_many_runs_is_believed_more_than_one_run() -> None:
    at, values = rows([(0, 0), (1, 0)], [8, 8]), np.array([-5.0, -6.0])
    one, many = AdditiveProcess(IDENTITY, SCALES), AdditiveProcess(IDENTITY, SCALES)
    one.fit(at, values, np.full(2, 0.001))
    many.fit(at, values, np.full(2, 0.001), np.array([1.0, 16.0]))
    (_, of_one), (_, of_many) = one.predict(at), many.predict(at)
    assert of_many[1] < 0.5 * of_one[1], "sixteen runs have a quarter of the noise"
    assert of_many[0] > 0.9 * of_one[0]


@pytest.mark.parametrize("repeated", [Repeats(), Repeats(squares=0.02, freedom=5, within=1e-4)])
def test_the_gradient_that_tuning_follows_is_that_of_what_it_minimises(repeated: Repeats) -> None:
    generator = np.random.default_rng(0)
    roots = generator.normal(size=(6, 9, 3))
    told = Told(
        groups=roots @ roots.transpose(0, 2, 1),
        values=generator.normal(size=9),
        errors=generator.uniform(0.01, 0.1, size=9),
        runs=generator.integers(1, 4, size=9).astype(float),
        usual_noise=0.05,
        repeated=repeated,
    )
    for factors in (np.zeros(6), generator.normal(size=6)):
        away = check_grad(lambda at: told.surprise(at)[0], lambda at: told.surprise(at)[1], factors)
        assert away < 1e-5 * np.linalg.norm(told.surprise(factors)[1])
