"""The ratio of two sums over units, and its error, from a few sums that an engine can make.

A unit's decisions depend on each other, units do not: so sums of products are over units, not over decisions.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


class Moments(NamedTuple):
    """Sums over units of a numerator A, a denominator B and their products: what a ratio and its error need."""

    units: int
    a: float
    b: float
    aa: float
    ab: float
    bb: float


class Estimate(NamedTuple):
    """A ratio with its standard error by unit and a t interval; fixed horizon."""

    value: float
    error: float
    low: float
    high: float


def moments(units: Integers, numerator: Floats, denominator: Floats) -> Moments:
    """Return the sums over units of rows' numerators [rows] and denominators [rows]; an engine can make them too."""
    a, b = np.bincount(units, weights=numerator), np.bincount(units, weights=denominator)
    return Moments(a.size, float(a.sum()), float(b.sum()), float(a @ a), float(a @ b), float(b @ b))


def ratio_of_sums(sums: Moments, confidence: float = 0.95) -> Estimate:
    """Return sum A / sum B with the error of its linearisation, units being independent (Liang and Zeger 1986).

    An error is nan for fewer than two units.
    """
    if sums.b == 0:
        return Estimate(math.nan, math.nan, math.nan, math.nan)
    value = sums.a / sums.b
    if sums.units < 2:
        return Estimate(value, math.nan, math.nan, math.nan)
    squared = max(sums.aa - 2 * value * sums.ab + value * value * sums.bb, 0.0)
    error = math.sqrt(squared * sums.units / (sums.units - 1)) / abs(sums.b)
    margin = float(special.stdtrit(sums.units - 1, (1 + confidence) / 2)) * error
    return Estimate(value, error, value - margin, value + margin)
