"""How strong is each ranker, when any two were compared on some impressions?

The Bradley-Terry model: i beats j with the probability e^(s_i - s_j) / (1 + e^(s_i - s_j)). It makes one order of all
pairs, and uses what third rankers tell of two that seldom met.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csgraph

from analysis.statistics.interleaving import Comparison

Floats = NDArray[np.float64]

_MOST_ROUNDS = 100_000
_CONVERGED = 1e-12


class BradleyTerry(NamedTuple):
    """Strengths of rankers; natural logarithms of odds, with the mean 0. All nan if the rankers are not connected."""

    strengths: Floats
    """[rankers]"""
    errors: Floats
    """Standard errors [rankers]."""
    covariance: Floats
    """[rankers, rankers]; its rows sum to 0."""
    groups: NDArray[np.intp]
    """Number of the group of each ranker [rankers]. Rankers of one group have each beaten each other, be it through
    others; between two groups either nobody met or one side won always, so that no finite difference fits."""

    @property
    def connected(self) -> bool:
        """Whether all rankers are of one group, and so have strengths (Ford 1957)."""
        return bool((self.groups == self.groups[:1]).all())

    def difference(self, first: int, second: int) -> tuple[float, float]:
        """Return how much stronger the first is than the second, and the standard error of that."""
        c = self.covariance
        variance = float(c[first, first] + c[second, second] - 2 * c[first, second])
        return float(self.strengths[first] - self.strengths[second]), math.sqrt(max(variance, 0.0))

    def win_probabilities(self) -> Floats:
        """Return the probability that the row's ranker beats the column's [rankers, rankers]."""
        return _chances(self.strengths)


def wins_of(comparisons: Mapping[tuple[int, int], Comparison], rankers: int) -> Floats:
    """Return wins of rows over columns [rankers, rankers], of which a tie gives half to either."""
    wins = np.zeros((rankers, rankers))
    for (first, second), found in comparisons.items():
        wins[first, second] += found.wins + found.ties / 2
        wins[second, first] += found.losses + found.ties / 2
    return wins


def bradley_terry(wins: ArrayLike) -> BradleyTerry:
    """Fit strengths to wins of rows over columns [rankers, rankers], or of each unit [units, rankers, rankers].

    By the minorisation-maximisation of Hunter (2004), equation 3. Of totals the errors are those of independent
    comparisons (the inverse information). An impression of a multileaving compares several pairs at once and a unit has
    several impressions, so pass wins by unit where they are known: then errors are by unit (the sandwich of Liang and
    Zeger 1986). ValueError for wins that are negative or over oneself.
    """
    each = np.asarray(wins, dtype=np.float64)
    total = each.sum(axis=0) if each.ndim == 3 else each
    if total.ndim != 2 or total.shape[0] != total.shape[1]:
        raise ValueError(f"wins must be [rankers, rankers] or [units, rankers, rankers]; they are {each.shape}")
    if not (np.isfinite(each).all() and (each >= 0).all() and (np.diagonal(total) == 0).all()):
        raise ValueError("wins must be finite and at least 0, and nobody wins against himself")
    count, labels = csgraph.connected_components(total > 0, directed=True, connection="strong")
    groups = np.asarray(labels, dtype=np.intp)
    if count != 1:
        unknown = np.full(len(total), np.nan)
        return BradleyTerry(unknown, unknown, np.full(total.shape, np.nan), groups)
    strengths = _fit(total)
    inverse = np.asarray(np.linalg.pinv(_information(total, strengths), hermitian=True), dtype=np.float64)
    covariance = inverse @ _outer_scores(each, strengths) @ inverse if each.ndim == 3 else inverse
    return BradleyTerry(strengths, np.sqrt(np.diagonal(covariance)), covariance, groups)


def _fit(total: Floats) -> Floats:
    played = total + total.T
    won = total.sum(axis=1)
    power = np.ones(len(total))
    for _ in range(_MOST_ROUNDS):
        improved = won / (played / (power + power[:, np.newaxis])).sum(axis=1)
        improved /= np.exp(np.log(improved).mean())
        step = float(np.abs(np.log(improved / power)).max())
        power = improved
        if step < _CONVERGED:
            break
    return np.asarray(np.log(power))


def _information(total: Floats, strengths: Floats) -> Floats:
    chance = _chances(strengths)
    weight = (total + total.T) * chance * chance.T
    return np.diag(weight.sum(axis=1)) - weight


def _outer_scores(each: Floats, strengths: Floats) -> Floats:
    """Return the sum over units of the outer products of their scores, with the correction for few units."""
    expected = (each + each.transpose(0, 2, 1)) * _chances(strengths)
    scores = (each - expected).sum(axis=2)
    return np.asarray(scores.T @ scores * (len(each) / max(len(each) - 1, 1)))


def _chances(strengths: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(strengths - strengths[:, np.newaxis])))
