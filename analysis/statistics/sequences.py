"""How far may a sum stray from its mean, if it is looked at again and again? Boundaries for all looks at once.

Each boundary depends on a variance process and on a tuning that is fixed before the data: at the planned size it is as
tight as it can be. Elsewhere it is wider and just as valid. A tuning that followed the sample size would be a constant
multiple of the standard error, which is crossed sooner or later with probability 1.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]

_BISECTIONS = 80


class Interval(NamedTuple):
    """Ends of intervals, one per look; infinite where nothing can be said."""

    low: Floats
    high: Floats


def mixture_rho(planned_variance: ArrayLike, alpha: float) -> Floats:
    """Return the rho with which the two-sided normal mixture is tightest at this variance of the sum.

    Howard, Ramdas, McAuliffe, Sekhon (2021), section 3.5. For a one-sided boundary with alpha pass twice that alpha.
    """
    _check(alpha)
    odds = -2.0 * math.log(alpha)
    return np.asarray(planned_variance, dtype=np.float64) / (odds + math.log1p(odds))


def normal_mixture(variance: ArrayLike, rho: ArrayLike, alpha: float) -> Floats:
    """Return what the absolute value of a sum exceeds at any look with probability alpha at most.

    Takes the variance of the sum at each look and rho, broadcast. Two-sided normal mixture of Howard et al. (2021),
    proposition 5: for normal increments, or bounded ones with the variance of Hoeffding's lemma.
    """
    _check(alpha)
    v, tuned = np.asarray(variance, dtype=np.float64), np.asarray(rho, dtype=np.float64)
    return np.sqrt((v + tuned) * (np.log1p(v / tuned) - 2.0 * math.log(alpha)))


def log_e_value(total: ArrayLike, variance: ArrayLike, rho: ArrayLike) -> Floats:
    """Return the logarithm of the evidence against the sum's mean being 0, which the boundary inverts.

    Its exponential is an e-process: it exceeds 1 / alpha at any look with probability alpha at most, exactly where the
    sum leaves `normal_mixture`. E-values of several metrics may be averaged.
    """
    s, v, tuned = (np.asarray(each, dtype=np.float64) for each in (total, variance, rho))
    return np.asarray(s * s / (2.0 * (v + tuned)) - np.log1p(v / tuned) / 2.0)


def always_valid_p_values(log_e_values: ArrayLike) -> Floats:
    """Return the p-value at each look from the logarithms of the e-values so far [.., looks]; nan counts as none.

    min(1, 1 / largest e-value so far): below alpha at any look with probability alpha at most (Johari, Koomen,
    Pekelis, Walsh 2022).
    """
    logarithms = np.asarray(log_e_values, dtype=np.float64)
    known = np.where(np.isnan(logarithms), -np.inf, logarithms)
    return np.asarray(np.exp(-np.maximum(np.maximum.accumulate(known, axis=-1), 0.0)))


def asymptotic_sequence(mean: ArrayLike, sd: ArrayLike, n: ArrayLike, planned: float, alpha: float) -> Interval:
    """Return the asymptotic confidence sequence of a mean of identically distributed values.

    Takes the running mean, standard deviation and number of values at each look, and the number of values for which it
    shall be tightest. Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas (2024), theorem 2.2.
    """
    count, centre = np.asarray(n, dtype=np.float64), np.asarray(mean, dtype=np.float64)
    margin = np.asarray(sd, dtype=np.float64) * normal_mixture(count, mixture_rho(planned, alpha), alpha) / count
    return Interval(centre - margin, centre + margin)


def lyapunov_sequence(
    mean: ArrayLike, variance: ArrayLike, n: ArrayLike, planned_variance: ArrayLike, alpha: float
) -> Interval:
    """Return the asymptotic confidence sequence of a mean of values whose variances differ.

    `variance` is the sum of the values' conditional variances, estimated, at each look; `planned_variance` is what it
    is expected to be at the planned size, fixed before these values. Waudby-Smith et al. (2024), the Lyapunov-type
    sequence, with r^2 = 1 / rho.
    """
    count, centre = np.asarray(n, dtype=np.float64), np.asarray(mean, dtype=np.float64)
    margin = normal_mixture(variance, mixture_rho(planned_variance, alpha), alpha) / count
    return Interval(centre - margin, centre + margin)


def gamma_exponential_log_mixture(total: ArrayLike, variance: ArrayLike, rho: float, scale: float) -> Floats:
    """Return the logarithm of the gamma-exponential mixture of sums, at least 0, whose variance process is given.

    Howard et al. (2021), proposition 9: a supermartingale that starts at 1 if the sum is sub-exponential with `scale`.
    """
    s, v = np.asarray(total, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    squared = scale * scale
    prior, shape, rate = rho / squared, (v + rho) / squared, (scale * s + v + rho) / squared
    return np.asarray(
        prior * math.log(prior)
        - special.gammaln(prior)
        - np.log(special.gammainc(prior, prior))
        + special.gammaln(shape)
        + np.log(special.gammainc(shape, rate))
        - shape * np.log(rate)
        + (scale * s + v) / squared
    )


def gamma_exponential(variance: ArrayLike, rho: float, scale: float, alpha: float) -> Floats:
    """Return what a sum exceeds at any look with probability alpha at most; one-sided and without asymptotics.

    Takes the variance process at each look. For values with range b - a = `scale` it is the sum of squared differences
    between each value and any guess of it in [a, b] made from the past (Howard et al. 2021, theorem 4). ValueError for
    a rho or scale that is not positive.
    """
    _check(alpha)
    if not (rho > 0 and scale > 0):
        raise ValueError(f"rho and scale must be positive; they are {rho} and {scale}")
    v = np.asarray(variance, dtype=np.float64)
    target = -math.log(alpha)
    low, high = np.zeros_like(v), normal_mixture(v, rho, alpha) + scale * (target + 1.0)
    while (short := gamma_exponential_log_mixture(high, v, rho, scale) < target).any():
        high = np.where(short, 2.0 * high, high)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        below = gamma_exponential_log_mixture(middle, v, rho, scale) < target
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return high


def running_intersection(interval: Interval) -> Interval:
    """Return what all intervals so far agree on [.., looks]: as valid, but only for a mean that never changes."""
    low = np.where(np.isnan(interval.low), -np.inf, interval.low)
    high = np.where(np.isnan(interval.high), np.inf, interval.high)
    return Interval(np.maximum.accumulate(low, axis=-1), np.minimum.accumulate(high, axis=-1))


def _check(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must be between 0 and 1; it is {alpha}")
