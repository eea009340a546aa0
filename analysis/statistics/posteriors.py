"""What is believed of each arm's mean, from additive statistics: how many values, their sum and their squares'.

Counts may be fractional, because old values can be made to count less than new ones.
"""

import sys
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

PRIOR_VALUES = 1.0
"""The prior of a mean weighs as much as this many values."""

PRIOR_SHAPE = 1.0
"""The prior of a variance weighs as much as twice this many values."""

# Sums carry this relative rounding error at least, so that they cannot tell a smaller variance from none.
_ROUNDING = 8 * sys.float_info.epsilon

# Counts that have been discounted to less than this are no values at all.
_NO_VALUES = 1e-100


class Beta(NamedTuple):
    """Of a probability: a beta distribution with these two parameters, both at least 1 with the uniform prior."""

    successes: float
    failures: float

    @property
    def mean(self) -> float:
        """The expected probability."""
        return self.successes / (self.successes + self.failures)


class Student(NamedTuple):
    """Of a mean whose variance is unknown too: Student's t distribution; scale 0 is certainty."""

    location: float
    scale: float
    freedom: float

    @property
    def mean(self) -> float:
        """The expected mean."""
        return self.location


class Normal(NamedTuple):
    """Of a mean: a normal distribution; standard deviation 0 is certainty."""

    mean: float
    sd: float


AnyPosterior = Beta | Student | Normal


class Pooled(NamedTuple):
    """Mean and variance of the values of all arms together."""

    mean: float
    variance: float


def pooled(n: ArrayLike, total: ArrayLike, squares: ArrayLike) -> Pooled:
    """Return mean and variance of all values, from the statistics of each arm [K]; 0 and 1 where there are none.

    The variance is never less than what the rounding of the sums leaves open, and 0 only if all values are 0.
    """
    count, sum_of_squares = float(np.sum(n)), float(np.sum(squares))
    if count < _NO_VALUES:
        return Pooled(0.0, 1.0)
    mean = float(np.sum(total)) / count
    return Pooled(mean, max(sum_of_squares / count - mean * mean, _ROUNDING * sum_of_squares / count))


def beta_posteriors(n: ArrayLike, total: ArrayLike) -> tuple[Beta, ...]:
    """Return the posterior of each arm's probability, from trials [K], successes [K] and the prior Beta(1, 1).

    Chapelle and Li (2011), algorithm 2. Successes beyond 0 or the trials, as rounding may leave them, are cut off.
    """
    trials = np.maximum(np.asarray(n, dtype=np.float64), 0.0)
    successes = np.clip(np.asarray(total, dtype=np.float64), 0.0, trials)
    return tuple(map(Beta, (1.0 + successes).tolist(), (1.0 + (trials - successes)).tolist()))


def student_posteriors(n: ArrayLike, total: ArrayLike, squares: ArrayLike) -> tuple[Student, ...]:
    """Return the posterior of each arm's mean, from counts [K], sums [K] and sums of squares [K].

    The marginal of the mean under a normal-inverse-gamma prior (Murphy 2007, "Conjugate Bayesian analysis of the
    Gaussian distribution", section 3.6), which is weak and on the data's own scale: centred on the mean of all arms'
    values, as if from one value, with their variance, as if from two.
    """
    centre, variance = pooled(n, total, squares)
    count = np.maximum(np.asarray(n, dtype=np.float64), 0.0)
    deviation = np.asarray(total, dtype=np.float64) - count * centre
    squared = np.asarray(squares, dtype=np.float64) - centre * (np.asarray(total, dtype=np.float64) + deviation)
    weight, shape = PRIOR_VALUES + count, PRIOR_SHAPE + count / 2
    rate = PRIOR_SHAPE * variance + np.maximum(squared - deviation * (deviation / weight), 0.0) / 2
    location, scale = centre + deviation / weight, np.sqrt(rate / shape / weight)
    return tuple(map(Student, location.tolist(), scale.tolist(), (2 * shape).tolist()))
