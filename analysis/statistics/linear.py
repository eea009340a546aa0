"""Bayesian linear regression from additive statistics: how does an arm's mean depend on the context?"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.posteriors import PRIOR_SHAPE, PRIOR_VALUES, pooled

Floats = NDArray[np.float64]


class Regression(NamedTuple):
    """Additive statistics of values y and their rows x, the first entry of which is 1.

    The number of values, the sum of y * y, the sum of y * x [d] and the sum of the outer products of x [d, d].
    """

    n: float
    squares: float
    xy: Floats
    xx: Floats


class Weights(NamedTuple):
    """Normal posterior of the weights: their mean [d] and the lower Cholesky factor of their covariance [d, d]."""

    mean: Floats
    factor: Floats


def nothing(columns: int) -> Regression:
    """Return the statistics of no values."""
    return Regression(0.0, 0.0, np.zeros(columns), np.zeros((columns, columns)))


def weight_posteriors(arms: Sequence[Regression]) -> tuple[Weights, ...]:
    """Return the posterior of each arm's weights.

    The prior is weak and on the data's own scale: all weights but the first are around 0, the first around the mean of
    all arms' values, as if from one value each, and the noise has these values' variance, as if from two. With the
    intercept alone this is the normal-inverse-gamma model of `student_posteriors`. The noise's variance is then taken
    for known, at rate / shape, so that scores are normal (Agrawal and Goyal 2013; Murphy 2012, section 7.6.3).
    """
    centre, variance = pooled([arm.n for arm in arms], [arm.xy[0] for arm in arms], [arm.squares for arm in arms])
    return tuple(_posterior(arm, centre, variance) for arm in arms)


def _posterior(arm: Regression, centre: float, variance: float) -> Weights:
    deviation = arm.xy - centre * arm.xx[:, 0]
    squared = arm.squares - centre * (arm.xy[0] + deviation[0])
    root = _inverse_root(arm.xx + PRIOR_VALUES * np.eye(len(arm.xy)))
    explained = root.T @ deviation
    mean = root @ explained
    mean[0] += centre
    rate = PRIOR_SHAPE * variance + max(squared - float(explained @ explained), 0.0) / 2
    return Weights(mean, math.sqrt(rate / (PRIOR_SHAPE + arm.n / 2)) * root)


def _inverse_root(precision: Floats) -> Floats:
    """Return the lower Cholesky factor of the inverse, without inverting first: by the matrix read backwards."""
    backwards = np.linalg.cholesky(precision[::-1, ::-1])
    return np.tril(np.linalg.inv(backwards).T[::-1, ::-1])
