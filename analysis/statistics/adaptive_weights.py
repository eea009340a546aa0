"""The alternative for one planned look: scores weighted so that the estimate is normal although traffic was adaptive.

Hadad, Hirshberg, Zhan, Wager, Athey (2021), "Confidence intervals for policy evaluation in adaptive experiments". These
intervals hold at the look that was planned, and not at every look.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from analysis.statistics.adaptive import increments
from analysis.statistics.cells import Cells

Floats = NDArray[np.float64]


class Weighted(NamedTuple):
    """An estimate, its standard error and the ends of its interval [..]; nan where there are no scores."""

    value: Floats
    error: Floats
    low: Floats
    high: Floats


def weighted_mean(cells: Cells, propensities: ArrayLike, arm: int, alpha: float = 0.05) -> Weighted:
    """Return the mean of an arm with weights that stabilise the variance: the square root of its propensity.

    Takes the propensities [.., periods, arms] as they were known before each period.
    """
    e = np.asarray(propensities, dtype=np.float64)[..., arm]
    return _weighted(cells, np.sqrt(e), {arm: 1.0}, alpha)


def weighted_contrast(
    cells: Cells, propensities: ArrayLike, treatment: int, control: int, alpha: float = 0.05
) -> Weighted:
    """Return the treatment's mean less the control's, with weights [1 / e(treatment) + 1 / e(control)]^(-1/2)."""
    e = np.asarray(propensities, dtype=np.float64)
    pair = e[..., treatment], e[..., control]
    weights = np.sqrt(pair[0] * pair[1] / (pair[0] + pair[1]))
    return _weighted(cells, weights, {treatment: 1.0, control: -1.0}, alpha)


def _weighted(cells: Cells, weights: Floats, signs: dict[int, float], alpha: float) -> Weighted:
    """Return sum h G / sum h, with the variance sum h^2 (G - estimate)^2 / (sum h)^2 (equation 12)."""
    if cells.totals.shape[-1] != 1:
        raise ValueError("weighted scores are of one value per decision; linearise ratios with the asymptotic sequence")
    sums, products = increments(cells)
    chosen = np.zeros(sums.shape[-1])
    for arm, sign in signs.items():
        chosen[1 + arm] = sign
    count, total, cross = sums[..., 0], sums @ chosen, products[..., 0, :] @ chosen
    squares = (products @ chosen) @ chosen
    size = (weights * count).sum(axis=-1)
    value = np.divide((weights * total).sum(axis=-1), size, out=np.full_like(size, np.nan), where=size > 0)
    estimate = value[..., np.newaxis]
    deviations = weights * weights * (squares - 2.0 * estimate * cross + estimate * estimate * count)
    error = np.sqrt(np.maximum(deviations.sum(axis=-1), 0.0)) / np.where(size > 0, size, math.nan)
    margin = float(special.ndtri(1.0 - alpha / 2.0)) * error
    return Weighted(value, error, value - margin, value + margin)
