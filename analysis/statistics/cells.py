"""What scores on adaptive data are made of: a few sums per period, whatever the number of decisions."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_SUM_OF_PROPENSITIES = 1e-6


class Cells(NamedTuple):
    """Sums over the decisions of each period; leading axes `..`, if any, are independent data sets.

    A decision has `values` components: one for a mean; numerator and denominator for a ratio, or for a mean over the
    decisions that were observed (value and 1, or 0 and 0). Weights are 1 / propensity of the arm that was chosen.
    """

    decisions: Floats
    """Number of decisions, of all arms [.., periods]."""
    counts: Floats
    """Number of decisions of each arm [.., periods, arms]."""
    totals: Floats
    """Sum of their values [.., periods, arms, values]."""
    squares: Floats
    """Sum of value * value' [.., periods, arms, values, values]."""
    weights: Floats
    """Sum of weights [.., periods, arms]."""
    weighted: Floats
    """Sum of weight * value [.., periods, arms, values]."""
    squared_weights: Floats
    """Sum of weight^2 [.., periods, arms]."""
    squared_weighted: Floats
    """Sum of weight^2 * value [.., periods, arms, values]."""
    products: Floats
    """Sum of weight^2 * value * value' [.., periods, arms, values, values]."""


class Visits(NamedTuple):
    """Sums over the decisions of each unit in each period, in any order: what `Cells` are made of, by unit."""

    units: NDArray[np.intp]
    """Number of the unit, from 0 [rows]."""
    periods: NDArray[np.intp]
    """Number of the period, from 0 [rows]."""
    decisions: Floats
    """Number of decisions [rows]."""
    weights: Floats
    """Sum of weights of each arm [rows, arms]."""
    weighted: Floats
    """Sum of weight * value of each arm [rows, arms, values]."""


def cells_of(propensities: ArrayLike, counts: ArrayLike, totals: ArrayLike, products: ArrayLike) -> Cells:
    """Return the cells of periods in each of which every decision had the same propensities.

    Takes propensities and counts [.., periods, arms], sums of values [.., periods, arms, values] and of their products
    [.., periods, arms, values, values]; for a single value the last axes may be missing.

    Raises:
        ValueError: If propensities are not positive, or do not sum to 1, in a period with decisions.
    """
    e, n = np.asarray(propensities, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    y, yy = np.asarray(totals, dtype=np.float64), np.asarray(products, dtype=np.float64)
    if y.ndim == n.ndim:
        y, yy = y[..., np.newaxis], yy[..., np.newaxis, np.newaxis]
    decisions = n.sum(axis=-1)
    used = np.broadcast_to(e, n.shape)[decisions > 0]
    if not (used > 0).all() or not np.allclose(used.sum(axis=-1), 1.0, rtol=0.0, atol=_SUM_OF_PROPENSITIES):
        raise ValueError("the propensities of a period must be positive and sum to 1")
    w = np.divide(1.0, e, out=np.zeros_like(e), where=e > 0)
    one, two = w[..., np.newaxis], w[..., np.newaxis, np.newaxis]
    return Cells(decisions, n, y, yy, n * w, y * one, n * w * w, y * one * one, yy * two * two)


def past_means(cells: Cells) -> Floats:
    """Return the mean of each arm's values in earlier periods [.., periods, arms, values]; 0 before the first."""
    count = earlier(cells.counts, 2)[..., np.newaxis]
    total = earlier(cells.totals, 3)
    return np.divide(total, count, out=np.zeros_like(total), where=count > 0)


def earlier(sums: Floats, axis: int) -> Floats:
    """Return running sums along the axis (counted from the end) that leave the period itself out."""
    return np.asarray(np.cumsum(sums, axis=-axis) - sums)
