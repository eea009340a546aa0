"""What could still be gained if the arm that looks best were shipped now? By quadrature, for independent posteriors.

Both are loss functions with a unit that a person can judge, unlike the probability to be best: two equally good arms
never get past one half, and yet nothing can be lost by taking either.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from analysis.statistics.best_arm import best_arm_probabilities
from analysis.statistics.posteriors import AnyPosterior, Beta, Normal, Student

Floats = NDArray[np.float64]

# Pieces end at these quantiles of every arm, as logarithms of odds; what is beyond the last weighs 1e-15.
_LOG_ODDS = np.linspace(-34.0, 34.0, 35)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_LARGEST_RATIO = 1e12


class ValueRemaining(NamedTuple):
    """The arm that is best most probably, and what remains to be gained by another one."""

    best: int
    share: float
    """Quantile of (largest mean - best's mean) / best's mean, as a share of the best's mean; infinite if that mean may
    be 0 or less with more than the quantile leaves."""
    loss: float
    """Expected (largest mean - best's mean), in the metric's unit."""
    losses: Floats
    """The same for every arm, were it shipped [arms]."""


class _Arm(NamedTuple):
    """Distribution of one arm's mean, larger being better."""

    below: Callable[[Floats], Floats]
    above: Callable[[Floats], Floats]
    quantiles: Callable[[Floats, Floats], Floats]
    """From probabilities below and above, of which the smaller has all its digits."""


def value_remaining(
    posteriors: Sequence[AnyPosterior],
    direction: Literal["increase", "decrease"] = "increase",
    quantile: float = 0.95,
) -> ValueRemaining:
    """Return what remains to be gained; for a metric that shall decrease, what remains to be saved.

    An experiment may stop when the share is below what would be worth its time (Scott 2015, "Multi-armed bandit
    experiments in the online service economy", with the quantile 0.95 and 1 %). ValueError for less than two arms.
    """
    if len(posteriors) < 2:
        raise ValueError("value remains only among two arms or more")
    best = int(np.argmax(best_arm_probabilities(posteriors, direction)))
    losses = expected_losses(posteriors, direction)
    return ValueRemaining(best, share_remaining(posteriors, best, direction, quantile), float(losses[best]), losses)


def expected_losses(
    posteriors: Sequence[AnyPosterior], direction: Literal["increase", "decrease"] = "increase"
) -> Floats:
    """Return how much better than each arm the best one is expected to be [arms], in the metric's unit.

    E max_j theta_j - theta_k = integral of F_k(x) (1 - product over j != k of F_j(x)) dx. nan where a posterior has no
    mean, which is a Student with a freedom of 1 or less.
    """
    arms = [_arm(posterior, direction == "increase") for posterior in posteriors]
    levels_below, levels_above = special.expit(_LOG_ODDS), special.expit(-_LOG_ODDS)
    cuts = np.unique(np.concatenate([arm.quantiles(levels_below, levels_above) for arm in arms]))
    x, weights = _nodes(cuts)
    below = np.array([arm.below(x) for arm in arms])
    # The sum of logarithms keeps the digits of survival, which the product of distribution functions near 1 loses.
    with np.errstate(divide="ignore"):
        logarithms = np.array([_log_below(arm, x) for arm in arms])
    losses = np.array(
        [
            float((below[k] * -np.expm1(np.delete(logarithms, k, axis=0).sum(axis=0))) @ weights)
            for k in range(len(arms))
        ]
    )
    vague = any(isinstance(posterior, Student) and posterior.freedom <= 1 for posterior in posteriors)
    return np.full(len(arms), np.nan) if vague else losses


def share_remaining(
    posteriors: Sequence[AnyPosterior],
    best: int,
    direction: Literal["increase", "decrease"] = "increase",
    quantile: float = 0.95,
) -> float:
    """Return the quantile of the gain of the best of all arms over the arm `best`, as a share of that arm's mean.

    P(gain <= v) = E product over the others of F_j((1 + v) theta), or of 1 - F_j((1 - v) theta) if less is better, for
    theta > 0 drawn from the best arm's posterior. Where theta is not positive the share has no meaning and counts as
    infinite.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"the quantile must be between 0 and 1; it is {quantile}")
    increase = direction == "increase"
    arm = _arm(posteriors[best], True)
    others = [_arm(posterior, True) for place, posterior in enumerate(posteriors) if place != best]

    def lacking(share: float) -> float:
        return quantile - _within(arm, others, 1 + share if increase else 1 - share, increase)

    if lacking(0.0) <= 0:
        return 0.0
    high = 1e-3
    while lacking(high) > 0:
        high *= 4
        if high > _LARGEST_RATIO:
            return math.inf
    return float(optimize.brentq(lacking, 0.0 if high == 1e-3 else high / 4, high, xtol=1e-12, rtol=1e-10))


def _within(arm: _Arm, others: Sequence[_Arm], factor: float, increase: bool) -> float:
    """Return P(theta > 0, and no other is beyond factor * theta), over the arm's own probability scale."""
    levels_below, levels_above = special.expit(_LOG_ODDS), special.expit(-_LOG_ODDS)
    start = float(_log_odds(arm, np.zeros(1))[0])
    cuts = [_LOG_ODDS]
    if factor > 0:
        cuts += [_log_odds(arm, other.quantiles(levels_below, levels_above) / factor) for other in others]
    edges = np.unique(np.clip(np.concatenate([*cuts, [start]]), max(start, _LOG_ODDS[0]), _LOG_ODDS[-1]))
    if edges.size < 2:
        return 0.0
    odds, weights = _nodes(edges)
    theta = arm.quantiles(special.expit(odds), special.expit(-odds))
    chance = np.prod([(other.below if increase else other.above)(factor * theta) for other in others], axis=0)
    return float((chance * special.expit(odds) * special.expit(-odds)) @ weights)


def _log_odds(arm: _Arm, x: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(arm.below(x)) - np.log(arm.above(x)))


def _log_below(arm: _Arm, x: Floats) -> Floats:
    above = arm.above(x)
    return np.where(above < 0.5, np.log1p(-above), np.log(arm.below(x)))


def _nodes(edges: Floats) -> tuple[Floats, Floats]:
    """Return nodes and weights of Gauss and Legendre for all pieces between edges."""
    half = np.diff(edges)[:, np.newaxis] / 2
    x = edges[:-1, np.newaxis] + half + half * _NODES
    return x.reshape(-1), (half * _WEIGHTS).reshape(-1)


def _arm(posterior: AnyPosterior, increase: bool) -> _Arm:
    arm = _distribution(posterior)
    if increase:
        return arm
    return _Arm(
        lambda x: arm.above(-x),
        lambda x: arm.below(-x),
        lambda below, above: -arm.quantiles(above, below),
    )


def _distribution(posterior: AnyPosterior) -> _Arm:
    match posterior:
        case Beta(a, b):
            return _Arm(
                lambda x: np.asarray(special.betainc(a, b, np.clip(x, 0, 1))),
                lambda x: np.asarray(special.betaincc(a, b, np.clip(x, 0, 1))),
                lambda below, above: np.where(
                    below < above, special.betaincinv(a, b, below), special.betainccinv(a, b, above)
                ),
            )
        case Student(location, scale, freedom):
            return _located(
                location,
                scale,
                lambda z: np.asarray(special.stdtr(freedom, z)),
                lambda p: np.asarray(special.stdtrit(freedom, p)),
            )
        case Normal(mean, sd):
            return _located(mean, sd, lambda z: np.asarray(special.ndtr(z)), lambda p: np.asarray(special.ndtri(p)))


def _located(
    centre: float, scale: float, below: Callable[[Floats], Floats], quantile: Callable[[Floats], Floats]
) -> _Arm:
    """Return the symmetric distribution around a centre; scale 0 is all mass there."""
    if scale == 0:
        return _Arm(
            lambda x: np.where(x >= centre, 1.0, 0.0),
            lambda x: np.where(x >= centre, 0.0, 1.0),
            lambda p, _: np.full_like(p, centre),
        )
    return _Arm(
        lambda x: below((x - centre) / scale),
        lambda x: below((centre - x) / scale),
        lambda p, q: centre + scale * np.where(p < q, quantile(p), -quantile(q)),
    )
