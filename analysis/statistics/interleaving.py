"""Which ranker do the clicks on interleaved lists prefer?"""

import math
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]

# What rounding leaves of a difference that is none.
_ROUNDING = 1e-12


Method = Literal["team_draft", "probabilistic", "optimised"]


class Comparison(NamedTuple):
    """How much a first ranker is preferred to a second one.

    `delta` is half the mean preference, in [-1/2, 1/2] and 0 if neither is preferred; nan without impressions. `low`
    and `high` bound it, and `p_value` is two-sided; they are nan where there are fewer than two units, or where all
    units say the same. Wins are impressions that prefer the first ranker, losses the second, ties neither.
    """

    delta: float
    low: float
    high: float
    p_value: float
    wins: int
    losses: int
    ties: int
    units: int
    impressions: int


def preferences(
    method: Method,
    impression: ArrayLike,
    gains: ArrayLike,
    impressions: int,
) -> Floats:
    """Return the preference of each impression, in [-1, 1], positive for the first ranker; 0 where nothing was clicked.

    Takes one row per clicked slot: the number of its impression [clicks], below `impressions`, and the credit that a
    click on the slot gives to either ranker [clicks, 2].

    Team draft: the sign of the difference in credit (Radlinski, Kurup, Joachims 2008). Probabilistic: the expectation
    of that sign over the slots' assignments (Hofmann, Whiteson, de Rijke 2011). Optimised: the mean difference in
    credit per click (Radlinski, Craswell 2013). All of them have mean 0 when clicks do not depend on items. With the
    last two methods the sign of the credits' difference has not, so it is no substitute.
    """
    rows = np.asarray(impression, dtype=np.intp).reshape(-1)
    credited = np.asarray(gains, dtype=np.float64).reshape(-1, 2)
    if method == "optimised":
        return _mean_difference(rows, credited, impressions)
    return _expected_sign(rows, credited, impressions)


def compare(preferred: ArrayLike, units: ArrayLike, confidence: float = 0.95) -> Comparison:
    """Compare two rankers by the preference and the unit of each impression, both [impressions].

    With preferences of -1, 0 and 1, delta is (wins + ties / 2) / n - 1/2 (Chapelle, Joachims, Radlinski, Yue 2012). The
    t-test takes units, not impressions, for independent: the variance is that of the units' totals, linearised around
    delta as for any ratio of means. With one impression per unit it is the ordinary one-sample test. ValueError for a
    preference outside [-1, 1].
    """
    values = np.asarray(preferred, dtype=np.float64) / 2
    if not np.all(np.abs(values) <= 0.5):
        raise ValueError("a preference is a number between -1 and 1")
    wins, losses = int((values > _ROUNDING).sum()), int((values < -_ROUNDING).sum())
    names, unit = np.unique(np.asarray(units), return_inverse=True)
    delta = float(values.mean()) if values.size else math.nan
    influence = np.bincount(unit, weights=values - delta, minlength=names.size) / max(values.size, 1)
    low, high, p_value = _t_test(delta, influence, confidence)
    ties = values.size - wins - losses
    return Comparison(delta, low, high, p_value, wins, losses, ties, names.size, values.size)


def pair_preferences(credit: ArrayLike, first: int, second: int) -> Floats:
    """Return the preference of two of several rankers [impressions] by the credit of all [impressions, rankers]."""
    credited = np.asarray(credit, dtype=np.float64)
    return np.asarray(np.sign(credited[:, first] - credited[:, second]))


def compare_pairs(
    credit: ArrayLike, comparable: ArrayLike, units: ArrayLike, confidence: float = 0.95
) -> dict[tuple[int, int], Comparison]:
    """Compare every two rankers of a team-draft multileaving (Schuth et al. 2014), by (first, second), first < second.

    Takes the clicks credited to each ranker [impressions, rankers], whether the impression compares it, which it does
    if the ranker had a slot [impressions, rankers], and the unit [impressions]. A pair is compared on the impressions
    that compare both. Each interval has the confidence by itself: for all at once, divide 1 - confidence by their
    number.
    """
    credited, there = np.asarray(credit, dtype=np.float64), np.asarray(comparable, dtype=np.bool_)
    names = np.asarray(units)
    found = {}
    for first, second in combinations(range(credited.shape[1]), 2):
        both = there[:, first] & there[:, second]
        found[first, second] = compare(pair_preferences(credited[both], first, second), names[both], confidence)
    return found


def _t_test(delta: float, influence: Floats, confidence: float) -> tuple[float, float, float]:
    """Return the bounds of delta and the p-value of 0, from what each unit adds to delta's error [units]."""
    freedom = influence.size - 1
    error = math.sqrt((freedom + 1) / freedom * float(influence @ influence)) if freedom > 0 else 0.0
    if error < _ROUNDING:
        return math.nan, math.nan, math.nan
    margin = float(special.stdtrit(freedom, (1 + confidence) / 2)) * error
    p_value = 2 * float(special.stdtr(freedom, -abs(delta) / error))
    return max(delta - margin, -0.5), min(delta + margin, 0.5), p_value


def _mean_difference(rows: NDArray[np.intp], gains: Floats, impressions: int) -> Floats:
    clicks = np.bincount(rows, minlength=impressions)
    return np.bincount(rows, weights=gains[:, 0] - gains[:, 1], minlength=impressions) / np.maximum(clicks, 1)


def _expected_sign(rows: NDArray[np.intp], gains: Floats, impressions: int) -> Floats:
    """Return the probability that more clicks are the first ranker's, less the same of the second's.

    A click is the first's with the probability of its first gain, the second's with that of the other, or nobody's.
    The difference is a sum of independent steps, so its distribution comes from one convolution per click.
    """
    order = np.argsort(rows, kind="stable")
    clicked, start, clicks = np.unique(rows[order], return_index=True, return_counts=True)
    sorted_gains = gains[order]
    most = int(clicks.max(initial=0))
    chances = np.zeros((clicked.size, 2 * most + 3))
    chances[:, most + 1] = 1.0
    for number in range(most):
        some = np.flatnonzero(clicks > number)
        first, second = sorted_gains[start[some] + number].T[:, :, np.newaxis]
        before = chances[some]
        after = before * (1.0 - first - second)
        after[:, 1:] += before[:, :-1] * first
        after[:, :-1] += before[:, 1:] * second
        chances[some] = after
    preferred = np.zeros(impressions)
    preferred[clicked] = chances[:, most + 2 :].sum(axis=1) - chances[:, : most + 1].sum(axis=1)
    return np.clip(preferred, -1.0, 1.0)
