import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from analysis.statistics.linear import Regression, Weights, nothing, weight_posteriors
from analysis.statistics.posteriors import student_posteriors

Floats = NDArray[np.float64]


def regression(rows: Floats, values: Floats) -> Regression:
    return Regression(float(len(values)), float(values @ values), rows.T @ values, rows.T @ rows)


def made_up(generator: np.random.Generator, count: int, weights: Floats, noise: float = 1.0) -> Regression:
    rows = np.column_stack([np.ones(count), generator.uniform(-1, 1, (count, len(weights) - 1))])
    return regression(rows, rows @ weights + noise * generator.normal(size=count))


def covariance(weights: Weights) -> Floats:
    return weights.factor @ weights.factor.T


def test_posterior_by_hand() -> None:
    # Values 0 at x = -1 and 2 at x = 1: the mean is 1, the variance 1, and 2 + 1 in each entry of the precision.
    (posterior,) = weight_posteriors([regression(np.array([[1.0, -1.0], [1.0, 1.0]]), np.array([0.0, 2.0]))])
    assert posterior.mean == pytest.approx([1.0, 2 / 3])
    # Deviations from 1 square to 2, of which 2 * 2 / 3 are explained; shape 2.
    assert covariance(posterior) == pytest.approx(np.eye(2) * (1 + (2 - 4 / 3) / 2) / 2 / 3)
    assert posterior.factor[0, 1] == 0.0


def test_intercept_alone_is_the_model_without_context() -> None:
    n, total, squares = [40.0, 7.5, 0.0], [12.0, 9.0, 0.0], [30.0, 20.0, 0.0]
    arms = [
        Regression(count, square, np.array([value]), np.array([[count]]))
        for count, value, square in zip(n, total, squares, strict=True)
    ]
    expected = student_posteriors(n, total, squares)
    for weights, student in zip(weight_posteriors(arms), expected, strict=True):
        assert weights.mean[0] == pytest.approx(student.location)
        assert weights.factor[0, 0] == pytest.approx(student.scale)


def test_posterior_is_the_ridge_regression_of_all_rows() -> None:
    generator = np.random.default_rng(2)
    rows = np.column_stack([np.ones(50), generator.uniform(-1, 1, (50, 4))])
    values = rows @ np.array([3.0, 1.0, -1.0, 0.5, 0.0]) + generator.normal(size=50)
    (posterior,) = weight_posteriors([regression(rows, values)])
    # Ridge regression is least squares with one more row of 0 for every weight.
    extended, target = np.vstack([rows, np.eye(5)]), np.concatenate([values - values.mean(), np.zeros(5)])
    solution, residual, *_ = np.linalg.lstsq(extended, target)
    noise = (values.var() + residual.item() / 2) / (1 + 50 / 2)
    assert posterior.mean == pytest.approx(solution + values.mean() * np.eye(5)[0])
    assert covariance(posterior) == pytest.approx(noise * np.linalg.inv(extended.T @ extended))
    assert np.allclose(posterior.factor, np.tril(posterior.factor), atol=0)
    assert np.all(np.diag(posterior.factor) > 0)


def test_arm_without_values_is_around_the_others_mean() -> None:
    generator = np.random.default_rng(4)
    seen, unseen = weight_posteriors([made_up(generator, 2000, np.array([5.0, 1.0, 0.0])), nothing(3)])
    assert unseen.mean[0] == pytest.approx(seen.mean[0], abs=0.1)
    assert unseen.mean[1:] == pytest.approx([0.0, 0.0])
    assert np.linalg.norm(unseen.factor) > 10 * np.linalg.norm(seen.factor)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e100, 1e-100, -3.3e7])
def test_values_that_are_all_the_same_leave_no_slope(value: float) -> None:
    rows = np.column_stack([np.ones(500), np.random.default_rng(1).uniform(-1, 1, (500, 3))])
    for weights in weight_posteriors([regression(rows, np.full(500, value)), nothing(4)]):
        assert np.isfinite(weights.factor).all()
        assert weights.mean == pytest.approx([value, 0, 0, 0], abs=1e-12 * abs(value))


@given(st.sampled_from([1e-100, 1e-3, 1e6, 1e100]), st.integers(0, 2**32 - 1))
def test_posterior_scales_with_the_values(scale: float, seed: int) -> None:
    arm = made_up(np.random.default_rng(seed), 30, np.array([1.0, 2.0, 0.0]))
    plain, scaled = (
        weight_posteriors([arm]),
        weight_posteriors([Regression(arm.n, scale * scale * arm.squares, scale * arm.xy, arm.xx)]),
    )
    assert scaled[0].mean / scale == pytest.approx(plain[0].mean, rel=1e-8)
    assert scaled[0].factor / scale == pytest.approx(plain[0].factor, rel=1e-8)


def test_features_that_are_always_the_same_or_alike_do_no_harm() -> None:
    generator = np.random.default_rng(6)
    column = generator.uniform(-1, 1, 10_000)
    rows = np.column_stack([np.ones(10_000), column, column, np.zeros(10_000), np.ones(10_000)])
    (posterior,) = weight_posteriors([regression(rows, 2 + column + generator.normal(size=10_000))])
    assert posterior.mean[1] == pytest.approx(posterior.mean[2])
    assert rows[0] @ posterior.mean == pytest.approx(2 + column[0], abs=0.1)
    assert np.isfinite(posterior.factor).all()


def test_scores_cover_the_true_mean_as_often_as_they_say() -> None:
    generator = np.random.default_rng(8)
    replications, level, covered = 1500, 0.9, 0
    truth, context = np.array([1.0, -2.0, 0.5]), np.array([1.0, 0.7, -0.3])
    quantile = stats.norm.ppf((1 + level) / 2)
    for _ in range(replications):
        (posterior,) = weight_posteriors([made_up(generator, 400, truth, noise=2.0)])
        error = context @ (posterior.mean - truth)
        covered += abs(error) <= quantile * np.linalg.norm(posterior.factor.T @ context)
    # The prior shrinks by about 1 part in 400, much less than the Monte Carlo error.
    assert covered / replications == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / replications))
