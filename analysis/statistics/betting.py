"""How large is a mean, with a guarantee for every sample size? By betting against each value that it might have.

A gambler who bets against "the mean is m" multiplies his capital by 1 + lambda * (x - m) at each value x, where the
bet lambda >= 0 was laid before x was seen and is so small that no possible x costs all of the capital. If the mean is
m, or less, capital is a supermartingale that starts at 1 and exceeds 1 / alpha at any time with probability alpha at
most (Ville). Values of m against which it does are excluded from below (Waudby-Smith, Ramdas 2023). Values need no
common bound, only a least one that is known before each period. So they may be outcomes divided by propensities,
however small and changing (Waudby-Smith, Wu, Ramdas, Karampatziakis 2022): for outcomes Y in [0, 1] the score
g + 1{A = a} / e (Y - g) is g - g / e at least, and 1 less the score is as much a score, of 1 - Y with 1 - g. The guess
g is the mean of earlier periods; with g = 0 the score is Y / e.

Scores come as a few distinct values per period with their numbers. An outcome between 0 and 1 may be given as the part
Y of an outcome 1 and the rest of an outcome 0: the logarithm is concave, so capital becomes less, never more, and the
sums of outcomes suffice.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.sequences import Interval

Floats = NDArray[np.float64]

# A hedge over bets that are best at the planned size divided by the squares of these: from 256 times less to 16 times
# more. Their capitals are averaged, so the hedge costs log 7 at most.
_SIZES = np.array([16.0, 8.0, 4.0, 2.0, 1.0, 0.5, 0.25])

_LARGEST_PART = 0.75
"""The largest part of the capital that is staked on one value."""

_PRIOR_VALUES = 1.0

GRID = 2000
"""Means that are tried unless another number is given."""

# So that memory stays bounded: periods * means * sizes numbers are held several times.
_AT_ONCE = 100


class Draws(NamedTuple):
    """What was seen in each period, in order of decision time; leading axes `..`, if any, are independent data sets."""

    values: Floats
    """Distinct values [.., periods, values]."""
    counts: Floats
    """How often each was seen [.., periods, values]."""
    least: Floats
    """The least value that could have been seen, as known before the period; 0 or less [.., periods]."""


class Pair(NamedTuple):
    """Draws that bound a parameter from below, and those that do so from above.

    The mean of `lower` is the parameter less `low`, that of `upper` is `high` less the parameter.
    """

    lower: Draws
    upper: Draws
    low: float
    high: float


def arm_draws(propensities: ArrayLike, counts: ArrayLike, totals: ArrayLike, arm: int) -> Pair:
    """Return what bounds the mean of an arm whose outcomes are between 0 and 1.

    Takes propensities, numbers of decisions and sums of outcomes, each [.., periods, arms]; propensities were known
    before the period. ValueError for other outcomes, and where the arm has no traffic.
    """
    e, n, y = _checked(propensities, counts, totals)
    return _pair([_Part(e[..., arm], n[..., arm], y[..., arm])], n.sum(axis=-1), 0.0)


def contrast_draws(propensities: ArrayLike, counts: ArrayLike, totals: ArrayLike, treatment: int, control: int) -> Pair:
    """Return what bounds the difference of two arms' means; arguments and errors as of `arm_draws`.

    From below by the treatment's score plus 1 less the control's, whose mean is 1 + difference.
    """
    e, n, y = _checked(propensities, counts, totals)
    first = _Part(e[..., treatment], n[..., treatment], y[..., treatment])
    second = _Part(e[..., control], n[..., control], n[..., control] - y[..., control])
    return _pair([first, second], n.sum(axis=-1), -1.0)


class _Part(NamedTuple):
    """One arm's propensity, number of decisions and sum of outcomes, each [.., periods]."""

    propensity: Floats
    decisions: Floats
    total: Floats


def _pair(parts: list[_Part], everything: Floats, low: float) -> Pair:
    others = [_Part(e, n, n - y) for e, n, y in parts]
    return Pair(_scores(parts, everything), _scores(others, everything), low, 1.0)


def _scores(parts: list[_Part], everything: Floats) -> Draws:
    """Return the sum of the arms' scores: a value for a decision of none of them, and two for each arm."""
    guesses = [_past_mean(part) for part in parts]
    start = np.sum(guesses, axis=0)
    values, counts, least = [start], [everything - sum(part.decisions for part in parts)], []
    for guess, (e, n, y) in zip(guesses, parts, strict=True):
        least.append(start - guess / e)
        values += [start + (1.0 - guess) / e, start - guess / e]
        counts += [y, n - y]
    return Draws(np.stack(values, axis=-1), np.stack(counts, axis=-1), np.min(least, axis=0))


def _past_mean(part: _Part) -> Floats:
    """Return the mean of earlier periods, with two made-up outcomes, 0 and 1, for a start."""
    return np.asarray((_earlier(part.total) + 1.0) / (_earlier(part.decisions) + 2.0))


def log_capital(draws: Draws, means: ArrayLike, planned: float, alpha: float) -> Floats:
    """Return the logarithm of the capital after each period that was bet against each mean [.., periods, means].

    Means are [means], at least 0, or [.., means] with the draws' leading axes. `planned` is the number of draws at
    which the bets shall be best, fixed in advance. A bet is sqrt(2 log(1 / alpha) / (size * variance)), where the
    variance is that of the draws of earlier periods, and never stakes more than 3/4 of the capital; each size has a
    capital of its own. ValueError for a negative mean or a least value above 0.
    """
    tried = np.asarray(means, dtype=np.float64)
    if not (tried >= 0).all() or not (draws.least <= 0).all():
        raise ValueError("means must not be negative, and the least value of a draw not positive")
    bets = np.sqrt(2.0 * -np.log(alpha) / (planned * _past_variances(draws)))[..., np.newaxis] * _SIZES
    # From here on [.., periods, means, sizes].
    possible_loss = tried[..., np.newaxis, :] - draws.least[..., np.newaxis]
    most = np.divide(_LARGEST_PART, possible_loss, out=np.full_like(possible_loss, np.inf), where=possible_loss > 0)
    bets = np.minimum(bets[..., np.newaxis, :], most[..., np.newaxis])
    growth = np.zeros(bets.shape)
    for place in range(draws.values.shape[-1]):
        value = draws.values[..., place, np.newaxis, np.newaxis]
        count = draws.counts[..., place, np.newaxis, np.newaxis]
        growth += count * np.log1p(bets * (value - tried[..., np.newaxis, :, np.newaxis]))
    return _log_mean_exp(np.cumsum(growth, axis=-3))


def sequence(pair: Pair, planned: float, alpha: float = 0.05, grid: int = GRID) -> Interval:
    """Return the confidence sequence of the parameter at each look, alpha / 2 on each side [.., periods].

    Ends are rounded outwards to a grid that is finer towards the ends of what is possible. With a mean that never
    changes, `running_intersection` makes it narrower.
    """
    width = pair.high - pair.low
    means = width * np.sin(np.linspace(0.0, np.pi / 2.0, grid + 1)) ** 2
    below, above = (_excluded(draws, means, planned, alpha / 2.0) for draws in (pair.lower, pair.upper))
    return Interval(pair.low + below, pair.high - above)


def covers(pair: Pair, truth: float, planned: float, alpha: float = 0.05) -> NDArray[np.bool_]:
    """Return whether `sequence`, on an infinitely fine grid, has the value inside at each look [.., periods]."""
    inside = [
        log_capital(draws, [mean], planned, alpha / 2.0)[..., 0] < -np.log(alpha / 2.0)
        for draws, mean in ((pair.lower, truth - pair.low), (pair.upper, pair.high - truth))
    ]
    return np.asarray(inside[0] & inside[1])


def _excluded(draws: Draws, means: Floats, planned: float, alpha: float) -> Floats:
    """Return the largest of the ascending means up to which all are excluded, at each look; 0 if none."""
    parts = np.array_split(means, max(len(means) // _AT_ONCE, 1))
    excluded = np.concatenate([log_capital(draws, part, planned, alpha) >= -np.log(alpha) for part in parts], axis=-1)
    return np.asarray(means[np.maximum(np.logical_and.accumulate(excluded, axis=-1).sum(axis=-1) - 1, 0)])


def _checked(propensities: ArrayLike, counts: ArrayLike, totals: ArrayLike) -> tuple[Floats, Floats, Floats]:
    n, y = np.asarray(counts, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    if not ((y >= 0) & (y <= n)).all():
        raise ValueError("betting needs outcomes between 0 and 1; scale others by their known range first")
    e = np.broadcast_to(np.asarray(propensities, dtype=np.float64), n.shape)
    if not (e > 0).all():
        raise ValueError("an arm without traffic in a period cannot be estimated in it; leave that period out")
    return e, n, y


def _past_variances(draws: Draws) -> Floats:
    """Return the variance of the values before each period, with one made-up value's for a start [.., periods]."""
    n = _earlier(draws.counts.sum(axis=-1))
    total = _earlier((draws.counts * draws.values).sum(axis=-1))
    squares = _earlier((draws.counts * draws.values * draws.values).sum(axis=-1))
    prior = (1.0 - draws.least[..., :1]) / 4.0
    deviations = np.maximum(squares - total * total / np.maximum(n, 1.0), 0.0)
    return np.asarray((prior * _PRIOR_VALUES + deviations) / (_PRIOR_VALUES + n))


def _earlier(sums: Floats) -> Floats:
    """Return running sums over periods that leave the period itself out."""
    return np.asarray(np.cumsum(sums, axis=-1) - sums)


def _log_mean_exp(logarithms: Floats) -> Floats:
    most = logarithms.max(axis=-1, keepdims=True)
    return np.asarray(most[..., 0] + np.log(np.exp(logarithms - most).mean(axis=-1)))
